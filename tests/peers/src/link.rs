//! What the pager needs of a page server.

use anyhow::Result;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// `PUT` of [`Link::put`] and `GET` of [`Link::get`], as both transports
/// write them.
pub(crate) const GET: u32 = 1;
/// See [`GET`].
pub(crate) const PUT: u32 = 2;

/// The way to a page server.
pub(crate) trait Link: Send + 'static {
    /// Fetches a page and hands its bytes to `take` where they lie.
    ///
    /// # Errors
    /// What the transport says, and what `take` does.
    fn get(&mut self, page: u32, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;

    /// Has the server keep a page. Every later `get` of it sees these bytes.
    ///
    /// # Errors
    /// What the transport says.
    fn put(&mut self, page: u32, bytes: &[u8; PAGE]) -> Result<()>;
}
