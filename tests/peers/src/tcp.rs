//! Pages over TCP, by the kernel's sockets.
//!
//! A request is two little-endian words, what and which page. `GET` is
//! answered with the page's bytes, `PUT` has them behind it and no answer:
//! one connection keeps the order.

use crate::link::{GET, Link, PAGE, PUT};
use crate::store::Store;
use anyhow::{Context, Result, bail};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The server's port.
const PORT: u16 = 9000;
/// How long a server is waited for.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// Between two tries.
const CONNECT_AGAIN: Duration = Duration::from_millis(100);
/// Bytes of a request.
const REQUEST: usize = 8;

fn request(what: u32, page: u32) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    bytes[..4].copy_from_slice(&what.to_le_bytes());
    bytes[4..].copy_from_slice(&page.to_le_bytes());
    bytes
}

/// The pager's end.
pub(crate) struct Client {
    stream: TcpStream,
    page: Box<[u8; PAGE]>,
}

impl Client {
    /// Connects to the server, which may still be starting.
    pub(crate) fn connect(server: &str) -> Result<Client> {
        let begun = Instant::now();
        loop {
            match TcpStream::connect((server, PORT)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Client { stream, page: Box::new([0; PAGE]) });
                }
                Err(error) if begun.elapsed() > CONNECT_LIMIT => {
                    return Err(error).context("the page server does not answer");
                }
                Err(_) => std::thread::sleep(CONNECT_AGAIN),
            }
        }
    }
}

impl Link for Client {
    fn get(&mut self, page: u32, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.stream.write_all(&request(GET, page))?;
        self.stream.read_exact(&mut self.page[..])?;
        take(&self.page[..])
    }

    fn put(&mut self, page: u32, bytes: &[u8; PAGE]) -> Result<()> {
        let mut message = [0; REQUEST + PAGE];
        message[..REQUEST].copy_from_slice(&request(PUT, page));
        message[REQUEST..].copy_from_slice(bytes);
        Ok(self.stream.write_all(&message)?)
    }
}

/// Serves `pages` pages to one pager.
pub(crate) fn serve(pages: usize) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let (stream, _) = listener.accept()?;
    serve_stream(stream, &mut Store::new(pages)?)
}

/// Answers requests until the pager hangs up.
fn serve_stream(mut stream: TcpStream, store: &mut Store) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST];
    loop {
        match stream.read_exact(&mut request) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| request[at + i]));
        let page = store.page_mut(word(4))?;
        match word(0) {
            GET => stream.write_all(page)?,
            PUT => stream.read_exact(page)?,
            other => bail!("the pager asks for {other}, which there is not"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_back() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            serve_stream(listener.accept().unwrap().0, &mut Store::new(8).unwrap())
        });
        let stream = TcpStream::connect(address).unwrap();
        let mut client = Client { stream, page: Box::new([0; PAGE]) };
        client.put(7, &[7; PAGE]).unwrap();
        client.put(3, &[3; PAGE]).unwrap();
        for (page, byte) in [(7, 7), (3, 3), (0, 0)] {
            let mut seen = Vec::new();
            let mut take = |bytes: &[u8]| {
                seen = bytes.to_vec();
                Ok(())
            };
            client.get(page, &mut take).unwrap();
            assert_eq!(seen, [byte; PAGE], "page {page}");
        }
        drop(client);
        server.join().unwrap().unwrap();
    }

    #[test]
    fn a_page_that_there_is_not_ends_the_connection() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            serve_stream(listener.accept().unwrap().0, &mut Store::new(8).unwrap())
        });
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&request(GET, 8)).unwrap();
        assert!(server.join().unwrap().is_err());
    }
}
