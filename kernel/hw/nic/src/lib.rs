//! NIC drivers behind one trait.
#![no_std]
