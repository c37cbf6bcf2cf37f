//! Guest devices.
#![no_std]
#![forbid(unsafe_code)]
