# One stub for each of the 256 vectors, and what they share. AT&T syntax.
# Source: AMD APM volume 2, section 8.9 (long-mode interrupt control transfers).
# A stub pushes a zero where the processor pushes no error code, then the
# vector; `vector_common` saves the registers as `exceptions::Frame` has them.

    .section .text.vectors, "ax", @progbits
    .balign 16
    .global vector_stubs
vector_stubs:
    .irp high,0,1,2,3,4,5,6,7,8,9,a,b,c,d,e,f
    .irp low,0,1,2,3,4,5,6,7,8,9,a,b,c,d,e,f
    .balign 16
    .if (0x\high\low != 8) && (0x\high\low != 10) && (0x\high\low != 11) && (0x\high\low != 12) && (0x\high\low != 13) && (0x\high\low != 14) && (0x\high\low != 17) && (0x\high\low != 21) && (0x\high\low != 29) && (0x\high\low != 30)
    pushq $0
    .endif
    pushq $0x\high\low
    jmp vector_common
    .endr
    .endr

    .balign 16
vector_common:
    pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %rbp
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, %rdi
    cld
    call vector_entry
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rbp
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rbx
    popq %rax
    addq $16, %rsp
    iretq
