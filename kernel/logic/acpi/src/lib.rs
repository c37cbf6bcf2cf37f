//! ACPI tables the guest sees.
#![no_std]
#![forbid(unsafe_code)]
