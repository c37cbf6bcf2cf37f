//! userfaultfd, as far as the pager needs it (ioctl_userfaultfd(2)).

use crate::link::PAGE;
use anyhow::{Context, Result, bail, ensure};
use linux_raw_sys::general::{
    UFFD_API, UFFD_EVENT_PAGEFAULT, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_PAGEFAULT_FLAG_WP,
    UFFD_PAGEFAULT_FLAG_WRITE, UFFDIO_COPY_MODE_WP, UFFDIO_REGISTER_MODE_MISSING,
    UFFDIO_REGISTER_MODE_WP, uffd_msg, uffdio_api, uffdio_copy, uffdio_range, uffdio_register,
    uffdio_writeprotect,
};
use linux_raw_sys::ioctl::{
    UFFDIO_API, UFFDIO_COPY, UFFDIO_REGISTER, UFFDIO_WAKE, UFFDIO_WRITEPROTECT,
};
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// `UFFDIO_WRITEPROTECT_MODE_WP`, which the bindings leave out.
const WRITEPROTECT_MODE_WP: u64 = 1;

/// A fault that waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    /// The address.
    pub(crate) address: u64,
    /// It is a write.
    pub(crate) write: bool,
    /// The page is there, but protected.
    pub(crate) protected: bool,
}

/// A userfaultfd. Its copies are one.
#[derive(Clone)]
pub(crate) struct Uffd(Arc<OwnedFd>);

impl Uffd {
    /// Opens one that tells faults on missing and on protected pages.
    pub(crate) fn open() -> Result<Uffd> {
        // SAFETY: the call takes flags and returns a new descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        if fd < 0 {
            return Err(Error::last_os_error()).context("userfaultfd cannot be opened");
        }
        // SAFETY: the descriptor is new and nobody else's.
        let uffd = Uffd(Arc::new(unsafe { OwnedFd::from_raw_fd(fd as i32) }));
        let mut api = uffdio_api {
            api: UFFD_API.into(),
            features: UFFD_FEATURE_PAGEFAULT_FLAG_WP.into(),
            ioctls: 0,
        };
        uffd.ioctl(UFFDIO_API, &mut api).context("userfaultfd does not protect pages here")?;
        Ok(uffd)
    }

    /// Does an ioctl.
    fn ioctl<T>(&self, request: u32, argument: &mut T) -> Result<(), Error> {
        // SAFETY: each request is used with the structure that belongs to it,
        // which the kernel reads and writes within its size.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), request.into(), argument) };
        if done < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }

    /// Has faults in a range come here.
    pub(crate) fn register(&self, start: u64, len: u64) -> Result<()> {
        let mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;
        let range = uffdio_range { start, len };
        let mut register = uffdio_register { range, mode: mode.into(), ioctls: 0 };
        self.ioctl(UFFDIO_REGISTER, &mut register).context("memory cannot be registered")
    }

    /// Waits for the next fault.
    pub(crate) fn next(&self) -> Result<Fault> {
        // SAFETY: all zero is a value of this plain structure.
        let mut message: uffd_msg = unsafe { std::mem::zeroed() };
        let size = size_of::<uffd_msg>();
        // SAFETY: the buffer is writable for its size.
        let len = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut message).cast(), size) };
        if len != size as isize {
            return Err(Error::last_os_error()).context("no fault can be read");
        }
        if u32::from(message.event) != UFFD_EVENT_PAGEFAULT {
            bail!("userfaultfd tells the event {}, which nobody asked for", message.event);
        }
        // SAFETY: the event says which member of the union it is.
        let fault = unsafe { message.arg.pagefault };
        Ok(Fault {
            address: fault.address,
            write: fault.flags & u64::from(UFFD_PAGEFAULT_FLAG_WRITE) != 0,
            protected: fault.flags & u64::from(UFFD_PAGEFAULT_FLAG_WP) != 0,
        })
    }

    /// Puts a page where none is, protected or not, and wakes who waits.
    pub(crate) fn copy(&self, to: u64, from: &[u8], protect: bool) -> Result<()> {
        ensure!(from.len() == PAGE, "a page of {} bytes", from.len());
        let mode = if protect { UFFDIO_COPY_MODE_WP.into() } else { 0 };
        let (dst, src) = (to, from.as_ptr() as u64);
        let mut copy = uffdio_copy { dst, src, len: PAGE as u64, mode, copy: 0 };
        self.ioctl(UFFDIO_COPY, &mut copy).context("a page cannot be put in place")
    }

    /// Protects a page from writes, or lets them be and wakes who waits.
    pub(crate) fn protect(&self, start: u64, protect: bool) -> Result<()> {
        let mode = if protect { WRITEPROTECT_MODE_WP } else { 0 };
        let range = uffdio_range { start, len: PAGE as u64 };
        let mut argument = uffdio_writeprotect { range, mode };
        self.ioctl(UFFDIO_WRITEPROTECT, &mut argument).context("a page cannot be protected")
    }

    /// Wakes who waits for a page, to fault again.
    pub(crate) fn wake(&self, start: u64) -> Result<()> {
        let mut range = uffdio_range { start, len: PAGE as u64 };
        self.ioctl(UFFDIO_WAKE, &mut range).context("a fault cannot be woken")
    }
}
