//! Formats of the frames on the cluster link.
#![no_std]
#![forbid(unsafe_code)]
