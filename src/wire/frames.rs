//! Bytes to messages, one whole frame at a time.
//!
//! pgwire decodes messages; the framing is ours, because its decoder reads past a frame that lies about its length. What
//! passes [`check`] cannot make it panic.

use std::io::{Error, ErrorKind};

use bytes::BytesMut;
use pgwire::messages::{DecodeContext, PgWireFrontendMessage, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest message before a login.
pub(super) const LOGIN_BYTES_MAX: usize = 10_000;

/// Longest message after it: a statement, a row of COPY, the values of a Bind.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The next whole frame of `buffer`, or `None` when more bytes are needed. A length out of bounds is an error.
pub(super) fn split_frame(
    buffer: &mut BytesMut,
    bytes_max: usize,
) -> std::io::Result<Option<BytesMut>> {
    if buffer.len() < 5 {
        return Ok(None);
    }
    let length = i32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]);
    let length = usize::try_from(length).ok().filter(|l| (4..=bytes_max).contains(l));
    let Some(length) = length else {
        return Err(Error::new(ErrorKind::InvalidData, "a message of impossible length"));
    };
    if buffer.len() <= length {
        // A header is no reason for a large allocation.
        buffer.reserve((1 + length - buffer.len()).min(1 << 16));
        return Ok(None);
    }
    Ok(Some(buffer.split_to(1 + length)))
}

/// Reads until a frame is whole; `None` when the peer has left.
pub(super) async fn read_frame<R: AsyncRead + Unpin>(
    io: &mut R,
    buffer: &mut BytesMut,
    bytes_max: usize,
) -> std::io::Result<Option<BytesMut>> {
    loop {
        if let Some(frame) = split_frame(buffer, bytes_max)? {
            return Ok(Some(frame));
        }
        if io.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// A frame as a message.
pub(super) fn decode(mut frame: BytesMut) -> Result<PgWireFrontendMessage, &'static str> {
    check(&frame)?;
    let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
    context.awaiting_frontend_ssl = false;
    context.awaiting_frontend_startup = false;
    match PgWireFrontendMessage::decode(&mut frame, &context) {
        Ok(Some(message)) => Ok(message),
        Ok(None) | Err(_) => Err("invalid frontend message"),
    }
}

struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (head, tail) =
            self.0.split_at_checked(count).ok_or("insufficient data left in message")?;
        self.0 = tail;
        Ok(head)
    }

    fn u16(&mut self) -> Result<usize, &'static str> {
        let bytes = self.take(2)?;
        Ok(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    }

    fn i32(&mut self) -> Result<i32, &'static str> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn text(&mut self) -> Result<(), &'static str> {
        let end = self.0.iter().position(|b| *b == 0).ok_or("invalid string in message")?;
        let text = self.take(end + 1)?;
        std::str::from_utf8(&text[..end])
            .map(|_| ())
            .map_err(|_| "invalid byte sequence for encoding \"UTF8\"")
    }
}

/// Whether a frame's body is what its type says, to the last byte.
fn check(frame: &[u8]) -> Result<(), &'static str> {
    let mut body = Body(frame.get(5..).ok_or("insufficient data left in message")?);
    match frame[0] {
        b'Q' | b'f' => body.text()?,
        b'P' => {
            body.text()?;
            body.text()?;
            let types = body.u16()?;
            body.take(types * 4)?;
        }
        b'B' => {
            body.text()?;
            body.text()?;
            let formats = body.u16()?;
            body.take(formats * 2)?;
            for _ in 0..body.u16()? {
                match body.i32()? {
                    -1 => {}
                    length => {
                        body.take(usize::try_from(length).map_err(|_| "invalid message format")?)?;
                    }
                }
            }
            let formats = body.u16()?;
            body.take(formats * 2)?;
        }
        b'C' | b'D' => {
            if !matches!(body.take(1)?[0], b'S' | b'P') {
                return Err("invalid message subtype");
            }
            body.text()?;
        }
        b'E' => {
            body.text()?;
            body.i32()?;
        }
        b'd' | b'p' => return Ok(()),
        b'H' | b'S' | b'X' | b'c' => {}
        _ => return Err("invalid frontend message type"),
    }
    if body.0.is_empty() { Ok(()) } else { Err("invalid message format") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever bytes come, the decoder answers; it never panics and never takes another frame's bytes.
        #[test]
        fn any_bytes_are_survived(kind in prop::sample::select(&b"QPBDECHSXfcdpZ\0"[..]), body in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut frame = BytesMut::new();
            frame.extend_from_slice(&[kind]);
            frame.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
            frame.extend_from_slice(&body);
            let mut buffer = frame.clone();
            buffer.extend_from_slice(b"rest");
            let whole = split_frame(&mut buffer, MESSAGE_BYTES_MAX).unwrap().unwrap();
            prop_assert_eq!(&whole, &frame);
            prop_assert_eq!(&buffer[..], b"rest");
            let _ = decode(whole);
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [-1i32, 0, 3, i32::MAX] {
            let mut buffer = BytesMut::from(&b"Q"[..]);
            buffer.extend_from_slice(&length.to_be_bytes());
            assert!(split_frame(&mut buffer, MESSAGE_BYTES_MAX).is_err(), "{length}");
        }
    }
}
