//! AMD SVM with nested paging.
#![no_std]
