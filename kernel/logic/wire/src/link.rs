//! Data, Ack and Heartbeat frames: acknowledgements, grants and messages.

use crate::bytes::{put, u32_at, u64_at};
use crate::{
    BODY_BYTES, HEADER_BYTES, Header, LINK_END, MESSAGE_BYTES, PAGE_OFFSET, WireError, header,
};
use addr::PAGE_SIZE;

/// Where the number of messages is.
const COUNT: usize = 63;

/// A virtual channel. Each has its own sequence numbers, window and queues,
/// so that a later one in the list never waits for an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Channel {
    /// Asks for something.
    Request = 0,
    /// A request passed on by the home.
    Forward = 1,
    /// Answers; always sunk by the receiver.
    Response = 2,
}

impl Channel {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All, the most urgent first.
    pub const BY_URGENCY: [Channel; 3] = [Channel::Response, Channel::Forward, Channel::Request];

    /// As an index into per-channel arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    #[inline]
    const fn from_wire(value: u8) -> Option<Channel> {
        Some(match value {
            0 => Channel::Request,
            1 => Channel::Forward,
            2 => Channel::Response,
            _ => return None,
        })
    }
}

/// What the sender has received, and how much it takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Link {
    /// Lowest sequence number of each channel that has not come.
    pub awaited: [u32; Channel::COUNT],
    /// Sequence numbers from `awaited` on that may be sent.
    pub window: [u8; Channel::COUNT],
    /// Bit i: `awaited + i` has come.
    pub received: [u64; Channel::COUNT],
}

impl Link {
    #[inline]
    pub(crate) fn emit(&self, buf: &mut [u8; LINK_END], messages: u8) {
        for n in 0..Channel::COUNT {
            put(buf, HEADER_BYTES + 4 * n, self.awaited[n].to_le_bytes());
            buf[60 + n] = self.window[n];
            put(buf, 64 + 8 * n, self.received[n].to_le_bytes());
        }
        buf[COUNT] = messages;
    }

    /// Writes a whole Ack or Heartbeat frame; returns its length.
    ///
    /// # Panics
    /// If `buf` is shorter than [`LINK_END`].
    pub fn emit_frame(&self, header: &Header, buf: &mut [u8]) -> usize {
        let buf: &mut [u8; LINK_END] = buf.first_chunk_mut().expect("buffer holds a link block");
        header.emit(buf);
        self.emit(buf, 0);
        header::seal(buf);
        LINK_END
    }

    #[inline]
    fn read(b: &[u8; LINK_END]) -> Link {
        let mut link = Link::default();
        for n in 0..Channel::COUNT {
            link.awaited[n] = u32_at(b, HEADER_BYTES + 4 * n);
            link.window[n] = b[60 + n];
            link.received[n] = u64_at(b, 64 + 8 * n);
        }
        link
    }

    /// Reads an Ack or Heartbeat frame.
    pub(crate) fn parse_frame(frame: &[u8], header: &Header) -> Result<Link, WireError> {
        let b = header::checked::<LINK_END>(frame)?;
        if b[COUNT] != 0 || header.payload != 0 {
            return Err(WireError::Malformed);
        }
        Ok(Link::read(b))
    }
}

/// One message, or the message that one part of a page belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Message<'a> {
    /// Virtual channel.
    pub channel: Channel,
    /// Sequence number in its channel. The parts of one page have
    /// consecutive numbers.
    pub sequence: u32,
    /// Which part of the page this frame holds.
    pub part: u8,
    /// Parts the page comes in; 0 without a page.
    pub parts: u8,
    /// Opaque content.
    pub body: &'a [u8; BODY_BYTES],
}

impl<'a> Message<'a> {
    #[inline(always)]
    pub(crate) fn emit(&self, b: &mut [u8; MESSAGE_BYTES]) {
        b[0] = self.channel as u8;
        b[1] = self.part | self.parts << 4;
        b[2] = 0;
        b[3] = 0;
        put(b, 4, self.sequence.to_le_bytes());
        put(b, 8, *self.body);
    }

    /// The message of a Data frame that has one and no page, whose header was found to
    /// be right and to speak of no payload: [`Data::parse`] says the same. `None` of
    /// any other.
    #[inline(always)]
    #[must_use]
    pub fn only(frame: &'a [u8]) -> Option<Message<'a>> {
        let one = frame.first_chunk::<PAGE_OFFSET>()?;
        if one[COUNT] != 1 || !header::sealed_one(one) {
            return None;
        }
        let b: &[u8; MESSAGE_BYTES] = one.last_chunk()?;
        if b[1..4] != [0; 3] {
            return None;
        }
        let channel = Channel::from_wire(b[0])?;
        let body = b.last_chunk()?;
        Some(Message { channel, sequence: u32_at(b, 4), part: 0, parts: 0, body })
    }

    #[inline]
    fn parse(b: &'a [u8; MESSAGE_BYTES]) -> Result<Message<'a>, WireError> {
        let (part, parts) = (b[1] & 0xF, b[1] >> 4);
        let body = b.last_chunk().expect("a message is longer than its body");
        if b[2] != 0 || b[3] != 0 || (parts == 0 && part != 0) || (parts != 0 && part >= parts) {
            return Err(WireError::Malformed);
        }
        let channel = Channel::from_wire(b[0]).ok_or(WireError::Malformed)?;
        Ok(Message { channel, sequence: u32_at(b, 4), part, parts, body })
    }
}

/// The payload of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Payload<'a> {
    /// It follows the header.
    Here(&'a [u8]),
    /// So many bytes that lie somewhere else.
    Apart(usize),
}

impl<'a> Payload<'a> {
    /// Bytes in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Payload::Here(bytes) => bytes.len(),
            Payload::Apart(len) => *len,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The payload that the header speaks of: behind `end` in the frame, or
    /// `apart` where that is given.
    #[inline]
    pub(crate) fn find(
        frame: &'a [u8],
        end: usize,
        payload: u16,
        apart: Option<usize>,
    ) -> Result<Payload<'a>, WireError> {
        let len = usize::from(payload);
        match apart {
            None => frame.get(end..end + len).map(Payload::Here).ok_or(WireError::Short),
            Some(there) if there == len => Ok(Payload::Apart(len)),
            Some(_) => Err(WireError::Malformed),
        }
    }
}

/// A Data frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Data<'a> {
    /// Acknowledgements and grants.
    pub link: Link,
    messages: Messages<'a>,
    /// The page or the part of it that belongs to the only message.
    pub payload: Payload<'a>,
}

impl<'a> Data<'a> {
    /// The messages, in the order they were written.
    #[inline]
    #[must_use]
    pub fn messages(&self) -> Messages<'a> {
        self.messages
    }

    /// Checks and reads a Data frame whose header speaks of so many bytes of
    /// `payload`; that lies behind the messages, or `apart` where that is given.
    ///
    /// # Errors
    /// Says what is wrong; no input panics.
    #[inline]
    pub fn parse(
        frame: &'a [u8],
        payload: u16,
        apart: Option<usize>,
    ) -> Result<Data<'a>, WireError> {
        // Most have one message, and somebody waits for it.
        match frame.first_chunk::<PAGE_OFFSET>() {
            Some(one) if one[COUNT] == 1 => Data::parse_one(frame, one, payload, apart),
            _ => Data::parse_any(frame, payload, apart),
        }
    }

    #[inline(always)]
    fn parse_one(
        frame: &'a [u8],
        one: &'a [u8; PAGE_OFFSET],
        payload: u16,
        apart: Option<usize>,
    ) -> Result<Data<'a>, WireError> {
        if !header::sealed_one(one) {
            return Err(WireError::Check);
        }
        let payload = Payload::find(frame, PAGE_OFFSET, payload, apart)?;
        let first = Message::parse(one.last_chunk().expect("a frame has a message"))?;
        if payload.len() > PAGE_SIZE || payload.is_empty() != (first.parts == 0) {
            return Err(WireError::Malformed);
        }
        let start = one.first_chunk().expect("a frame begins with that");
        let messages = Messages { first: Some(first), later: &[] };
        Ok(Data { link: Link::read(start), messages, payload })
    }

    #[inline(never)]
    fn parse_any(
        frame: &'a [u8],
        payload: u16,
        apart: Option<usize>,
    ) -> Result<Data<'a>, WireError> {
        let b = frame.first_chunk::<LINK_END>().ok_or(WireError::Short)?;
        let count = usize::from(b[COUNT]);
        let end = LINK_END + count * MESSAGE_BYTES;
        let whole = frame.get(..end).ok_or(WireError::Short)?;
        if !header::sealed(whole) {
            return Err(WireError::Check);
        }
        let payload = Payload::find(frame, end, payload, apart)?;
        let (messages, _) = whole[LINK_END..].as_chunks::<MESSAGE_BYTES>();
        let Some((first, later)) = messages.split_first() else {
            return Err(WireError::Malformed);
        };
        let first = Message::parse(first)?;
        let paged = !payload.is_empty();
        if payload.len() > PAGE_SIZE || paged != (first.parts != 0) || (paged && count != 1) {
            return Err(WireError::Malformed);
        }
        for m in later {
            if Message::parse(m)?.parts != 0 {
                return Err(WireError::Malformed);
            }
        }
        let messages = Messages { first: Some(first), later };
        Ok(Data { link: Link::read(b), messages, payload })
    }
}

/// The messages of a Data frame, in the order they were written. Most frames have
/// one or two, and the first is read once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Messages<'a> {
    first: Option<Message<'a>>,
    later: &'a [[u8; MESSAGE_BYTES]],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    #[inline]
    fn next(&mut self) -> Option<Message<'a>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let (next, later) = self.later.split_first()?;
        self.later = later;
        // They were read before.
        Message::parse(next).ok()
    }
}

/// Fills a Data frame message by message.
#[derive(Debug)]
pub struct DataWriter<'b> {
    buf: &'b mut [u8],
    count: u8,
}

impl<'b> DataWriter<'b> {
    /// Starts a frame whose header part may fill all of `buf`.
    ///
    /// # Panics
    /// If `buf` is shorter than [`PAGE_OFFSET`].
    #[inline]
    pub fn new(buf: &'b mut [u8]) -> Self {
        assert!(buf.len() >= PAGE_OFFSET, "buffer holds one message");
        DataWriter { buf, count: 0 }
    }

    /// Messages written so far.
    #[must_use]
    pub fn count(&self) -> u8 {
        self.count
    }

    /// Whether one more message fits.
    #[inline]
    #[must_use]
    pub fn room(&self) -> bool {
        self.count < u8::MAX && self.end() + MESSAGE_BYTES <= self.buf.len()
    }

    fn end(&self) -> usize {
        LINK_END + usize::from(self.count) * MESSAGE_BYTES
    }

    /// Adds a message. One with a page must be the only one.
    ///
    /// # Panics
    /// If there is no room.
    #[inline(always)]
    pub fn push(&mut self, message: &Message<'_>) {
        assert!(self.room(), "message beyond the frame");
        let at = self.end();
        message.emit(self.buf[at..].first_chunk_mut().expect("room was checked"));
        self.count += 1;
    }

    /// Writes header, acknowledgements and check; returns the length.
    #[inline(always)]
    pub fn finish(self, header: &Header, link: &Link) -> usize {
        let end = self.end();
        header.emit(self.buf);
        let block = self.buf.first_chunk_mut().expect("length was checked");
        link.emit(block, self.count);
        header::seal(&mut self.buf[..end]);
        end
    }
}
