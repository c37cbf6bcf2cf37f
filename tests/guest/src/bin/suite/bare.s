# Boots the suite without Pangaea: QEMU by its PVH note (Xen
# docs/misc/pvh.pandoc), GRUB by Multiboot2 2.0. Both enter in 32-bit
# protected mode with paging off. Leaves it as Pangaea's loader does: long
# mode, the first 4 GiB mapped to themselves, RSI at a zero page.

    .section .multiboot2, "a"
    .balign 8
bare_header:
    .long 0xE85250D6
    .long 0                             # i386, 32-bit protected mode
    .long bare_header_end - bare_header
    .long -(0xE85250D6 + (bare_header_end - bare_header))
    .short 3                            # entry address
    .short 0
    .long 12
    .long bare_entry
    .long 0                             # padding
    .short 0                            # end of tags
    .short 0
    .long 8
bare_header_end:

    .section .note.pvh, "a", @note
    .balign 4
    .long 4                             # name size
    .long 8                             # descriptor size
    .long 18                            # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad bare_entry_pvh

    .text
    .code32
bare_entry_pvh:
    mov edx, [ebx + 24]                 # hvm_start_info.cmdline_paddr
    mov [bare_zero_page + 0x228], edx
bare_entry:
    cli
    cld
    # Identity map of the first 4 GiB in 2 MiB pages: 2048 entries.
    xor ecx, ecx
1:  mov eax, ecx
    shl eax, 21
    or eax, 0x83                        # present, writable, large
    mov [bare_tables + 0x2000 + ecx * 8], eax
    inc ecx
    cmp ecx, 2048
    jne 1b
    xor ecx, ecx
2:  mov eax, ecx
    shl eax, 12
    add eax, offset bare_tables + 0x2003
    mov [bare_tables + 0x1000 + ecx * 8], eax
    inc ecx
    cmp ecx, 4
    jne 2b
    mov eax, offset bare_tables + 0x1003
    mov [bare_tables], eax
    mov eax, offset bare_tables
    mov cr3, eax
    mov eax, cr4
    or eax, 0x20                        # PAE
    mov cr4, eax
    mov ecx, 0xC0000080                 # EFER
    rdmsr
    or eax, 0x100                       # LME
    wrmsr
    mov eax, cr0
    and eax, 0x9FFFFFFF                 # caches on: CD and NW clear
    or eax, 0x80000021                  # PG, NE, PE
    mov cr0, eax
    lgdt [bare_gdt_pointer]
    .byte 0xEA                          # far jump to 64-bit code
    .long bare_long
    .short 0x10

    .code64
bare_long:
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lea rsp, [rip + bare_stack_top]
    lea rsi, [rip + bare_zero_page]
    jmp _start

    .balign 8
bare_gdt:                               # as the loader's: code 0x10, data 0x18
    .quad 0, 0
    .quad 0x00AF9B000000FFFF
    .quad 0x00CF93000000FFFF
bare_gdt_pointer:
    .short 31
    .long bare_gdt

    .bss
    .balign 4096
bare_tables:    .skip 6 * 4096
bare_zero_page: .skip 4096
    .skip 64 << 10
bare_stack_top:
    .text
