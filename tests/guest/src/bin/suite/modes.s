# A trip from long mode down to real mode and up again (AMD APM volume 2,
# 14.6 and 1.3): copied to MODES_AT, below 64 KiB, and called there. Each
# station leaves what it saw in the words from MODES_SEEN on.

    .set MODES_AT, 0x8000
    .set MODES_SEEN, 0x9000
    .set MODES_STACK, 0x7F00
    .text
    .globl modes_begin, modes_end
    .balign 16
modes_begin:
    # RDI: CR3 of long mode; RSI: root for PAE; RDX: root for 32-bit paging.
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [MODES_SEEN + 0xF00], rsp
    mov [MODES_SEEN + 0xF08], rdi
    mov [MODES_SEEN + 0xF10], rsi
    mov [MODES_SEEN + 0xF18], rdx
    lgdt [rip + modes_gdt_pointer]
    push 0x08
    mov eax, offset modes_at_compatible
    push rax
    retfq

    .code32
modes_compatible:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, MODES_STACK
    # Compatibility mode, paging still on.
    mov ecx, 0xC0000080
    rdmsr
    mov [MODES_SEEN], eax               # EFER: LMA set
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax                        # paging off: out of long mode
    rdmsr
    mov [MODES_SEEN + 4], eax           # LMA clear, LME set
    and eax, 0xFFFFFEFF
    wrmsr
    rdmsr
    mov [MODES_SEEN + 8], eax           # LME clear

    # Protected mode without paging.
    mov eax, 1
    cpuid
    mov [MODES_SEEN + 12], edx
    in eax, 0xE0
    mov [MODES_SEEN + 16], eax
    mov dword ptr [0xFEC00000], 0x12
    mov eax, [0xFEC00000]
    and eax, 0xFF
    mov [MODES_SEEN + 20], eax
    mov edi, MODES_SEEN + 24
    mov ecx, 4
    mov edx, 0xE0
    rep insb
    mov [MODES_SEEN + 28], ecx

    # 32-bit paging, pages of 4 MiB.
    mov eax, cr4
    mov ebx, eax
    and eax, 0xFFFFFFDF
    or eax, 0x10                        # PAE off, PSE on
    mov cr4, eax
    mov eax, [MODES_SEEN + 0xF18]
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp 1f
1:  in eax, 0xE0
    mov [MODES_SEEN + 32], eax
    mov eax, [0xFEC00000]               # a device by these tables
    and eax, 0xFF
    mov [MODES_SEEN + 36], eax
    mov eax, [0x40000000 + MODES_SEEN + 20]   # an alias of the first 4 MiB
    mov [MODES_SEEN + 40], eax
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax

    # PAE paging.
    mov eax, ebx
    or eax, 0x20
    mov cr4, eax
    mov eax, [MODES_SEEN + 0xF10]
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp 1f
1:  in eax, 0xE0
    mov [MODES_SEEN + 44], eax
    mov eax, [0xFEC00000]
    and eax, 0xFF
    mov [MODES_SEEN + 48], eax
    mov ecx, 0xC0000080
    rdmsr
    mov [MODES_SEEN + 52], eax          # LMA clear
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax

    .byte 0xEA                          # far jump to 16-bit code
    .long modes_at_16
    .short 0x18

    .code16
modes_16:
    mov ax, 0x20
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, cr0
    and eax, 0xFFFFFFFE
    mov cr0, eax
    .byte 0xEA                          # far jump: real mode
    .short modes_at_real
    .short 0

modes_real:
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, MODES_STACK
    lidt [modes_at_ivt_pointer]
    mov word ptr [0x60 * 4], offset modes_at_int
    mov word ptr [0x60 * 4 + 2], ax
    mov word ptr [0], offset modes_at_divide
    mov word ptr [2], ax
    mov eax, cr0
    mov [MODES_SEEN + 56], eax
    mov eax, 0x1234
    int 0x60                            # adds one
    mov [MODES_SEEN + 60], eax
    mov eax, 1
    cpuid
    mov [MODES_SEEN + 64], edx
    in ax, 0xE0
    mov [MODES_SEEN + 68], ax
    # ES:DI reaches over what 16 bits hold.
    mov ax, (MODES_SEEN + 0x48) >> 4
    mov es, ax
    mov di, (MODES_SEEN + 0x48) & 15
    mov cx, 3
    mov dx, 0xE0
    mov dword ptr [MODES_SEEN + 72], 0
    rep insb
    mov [MODES_SEEN + 76], cx
    # A fault by the table of real mode: its handler goes on behind.
    xor cx, cx
    mov ax, 5
    mov dword ptr [MODES_SEEN + 80], 0
    div cl
    mov ecx, 0xC0000080
    rdmsr
    mov [MODES_SEEN + 84], eax

    mov eax, cr0
    or eax, 1
    mov cr0, eax
    .byte 0x66, 0xEA                    # far jump to 32-bit code
    .long modes_at_up
    .short 0x08

modes_int:
    inc ax
    iret
modes_divide:
    mov dword ptr [MODES_SEEN + 80], 0xD1
    push bp
    mov bp, sp
    add word ptr [bp + 2], 2            # DIV CL has two bytes
    pop bp
    iret

    .code32
modes_up:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, [MODES_SEEN + 0xF08]
    mov cr3, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    rdmsr
    mov [MODES_SEEN + 88], eax          # LMA set again
    .byte 0xEA                          # far jump to 64-bit code
    .long modes_at_long
    .short 0x28

    .code64
modes_long:
    mov rsp, [MODES_SEEN + 0xF00]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

    .balign 8
modes_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF            # 08: 32-bit code
    .quad 0x00CF93000000FFFF            # 10: data
    .quad 0x00009B000000FFFF            # 18: 16-bit code
    .quad 0x000093000000FFFF            # 20: 16-bit data
    .quad 0x00AF9B000000FFFF            # 28: 64-bit code
modes_gdt_pointer:
    .short 47
    .quad modes_at_gdt
modes_ivt_pointer:
    .short 0x3FF
    .long 0
modes_end:

    # Where things are once they are copied.
    .set modes_at_16, MODES_AT + (modes_16 - modes_begin)
    .set modes_at_compatible, MODES_AT + (modes_compatible - modes_begin)
    .set modes_at_divide, MODES_AT + (modes_divide - modes_begin)
    .set modes_at_gdt, MODES_AT + (modes_gdt - modes_begin)
    .set modes_at_int, MODES_AT + (modes_int - modes_begin)
    .set modes_at_ivt_pointer, MODES_AT + (modes_ivt_pointer - modes_begin)
    .set modes_at_long, MODES_AT + (modes_long - modes_begin)
    .set modes_at_real, MODES_AT + (modes_real - modes_begin)
    .set modes_at_up, MODES_AT + (modes_up - modes_begin)
