//! Whole clusters booted.
