# From firmware (32-bit protected mode, paging off) to 64-bit Rust.
# AT&T syntax. Sources: Multiboot2 2.0 section 3.1 and 3.3; Xen
# docs/misc/pvh.pandoc; AMD APM volume 2, section 14.6 (entering long mode).

.set MULTIBOOT2_HEADER_MAGIC, 0xE85250D6
.set PVH_NOTE_PHYS32_ENTRY, 18

    .section .boot.multiboot2, "a"
    .balign 8
multiboot2_header:
    .long MULTIBOOT2_HEADER_MAGIC
    .long 0                             # i386, 32-bit protected mode
    .long multiboot2_header_end - multiboot2_header
    .long -(MULTIBOOT2_HEADER_MAGIC + (multiboot2_header_end - multiboot2_header))
    .short 6                            # module alignment: 4 KiB
    .short 0
    .long 8
    .short 4                            # console flags
    .short 1                            # optional: the node uses COM1,
    .long 12
    .long 2                             # and an EGA text screen is welcome
    .long 0                             # padding
    .short 0                            # end of tags
    .short 0
    .long 8
multiboot2_header_end:

    .section .note.pvh, "a", @note
    .balign 4
    .long 4                             # name size
    .long 8                             # descriptor size
    .long PVH_NOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad boot_entry_pvh

    .section .boot.text, "ax", @progbits
    .code32
    .global boot_entry_pvh
boot_entry_pvh:
    xorl %eax, %eax                     # tells the two protocols apart
    .global boot_entry_multiboot2
boot_entry_multiboot2:
    cli
    cld
    movl $__stack_top, %esp
    movl %eax, %edi                     # first argument: magic or 0
    movl %ebx, %esi                     # second: the table's address

    # No long mode, no hypervisor: CPUID 8000_0001h EDX bit 29.
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb boot_no_long_mode
    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jnc boot_no_long_mode

    # Identity map of the first 4 GiB in 2 MiB pages: 2048 entries.
    xorl %ecx, %ecx
1:  movl %ecx, %eax
    shll $21, %eax
    orl $0x83, %eax                     # present, writable, large
    movl %eax, boot_pd(,%ecx,8)
    movl $0, boot_pd+4(,%ecx,8)
    incl %ecx
    cmpl $2048, %ecx
    jne 1b
    xorl %ecx, %ecx
2:  movl %ecx, %eax
    shll $12, %eax
    addl $(boot_pd + 3), %eax
    movl %eax, boot_pdpt(,%ecx,8)
    movl $0, boot_pdpt+4(,%ecx,8)
    incl %ecx
    cmpl $4, %ecx
    jne 2b
    movl $(boot_pdpt + 3), %eax
    movl %eax, boot_pml4
    movl $0, boot_pml4+4

    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x20, %eax                     # PAE
    movl %eax, %cr4
    movl $0xC0000080, %ecx              # EFER
    rdmsr
    orl $0x100, %eax                    # LME
    wrmsr
    movl %cr0, %eax
    andl $0x9FFFFFFF, %eax              # caches on: CD and NW clear
    orl $0x80000001, %eax               # PG, PE
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $0x08, $boot_entry_64

boot_no_long_mode:
    movl $boot_no_long_mode_text, %esi
3:  movw $0x3FD, %dx                    # COM1 line status, bounded wait
    movl $100000, %ecx
4:  inb %dx, %al
    testb $0x20, %al
    jnz 5f
    decl %ecx
    jnz 4b
5:  movb (%esi), %al
    testb %al, %al
    jz 6f
    movw $0x3F8, %dx
    outb %al, %dx
    incl %esi
    jmp 3b
6:  hlt
    jmp 6b
boot_no_long_mode_text:
    .asciz "pangaea: this processor has no 64-bit mode\r\n"

    .code64
boot_entry_64:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    movq $__stack_top, %rsp
    xorl %ebp, %ebp                     # ends every backtrace
    movl %edi, %edi
    movl %esi, %esi
    call boot_entry_rust
7:  hlt
    jmp 7b

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00AF9A000000FFFF            # 08: 64-bit code
    .quad 0x00CF92000000FFFF            # 10: data
boot_gdt_pointer:
    .short 23
    .long boot_gdt

    .section .bss.boot_tables, "aw", @nobits
    .balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4 * 4096
