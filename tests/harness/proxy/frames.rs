//! The messages of PostgreSQL's protocol, as far as one must read them to know where a commit begins and ends.

use bytes::{Buf, Bytes, BytesMut};

/// A frontend asks for TLS or GSSAPI first; it is told no.
const ENCRYPTION_REQUESTS: [u32; 2] = [80_877_103, 80_877_104];
const PROTOCOL_3: u32 = 3 << 16;

/// The first thing that a client sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    /// To be answered with `N`.
    Encryption,
    /// The application's name, and the message to pass on.
    Startup { application: String, message: Bytes },
    /// To be passed on unread.
    Other,
}

/// A message with its type; whole, header included.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub message: Bytes,
}

impl Frame {
    /// Takes the first whole message off `buffer`.
    pub fn take(buffer: &mut BytesMut) -> Option<Self> {
        let length = u32::from_be_bytes(buffer.get(1..5)?.try_into().expect("four bytes")) as usize;
        (buffer.len() > length).then(|| Self { kind: buffer[0], message: buffer.split_to(length + 1).freeze() })
    }

    /// The SQLSTATE of an error response.
    pub fn code(&self) -> Option<String> {
        let fields = self.message.get(5..)?.split(|byte| *byte == 0);
        fields.filter_map(|field| field.strip_prefix(b"C")).map(|code| String::from_utf8_lossy(code).into()).next()
    }
}

impl Opening {
    /// Takes it off `buffer`, once it is there.
    pub fn take(buffer: &mut BytesMut) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(buffer.get(at..at + 4)?.try_into().expect("four bytes")));
        let (length, code) = (word(0)? as usize, word(4)?);
        if ENCRYPTION_REQUESTS.contains(&code) {
            buffer.advance(8);
            return Some(Self::Encryption);
        }
        if code != PROTOCOL_3 {
            return Some(Self::Other);
        }
        if buffer.len() < length {
            return None;
        }
        let message = buffer.split_to(length).freeze();
        let words: Vec<_> = message[8..].split(|byte| *byte == 0).collect();
        let named = words.as_chunks().0.iter().find(|[name, _]| *name == b"application_name");
        let application = named.map_or_else(String::new, |[_, value]| String::from_utf8_lossy(value).into_owned());
        Some(Self::Startup { application, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(parameters: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + parameters.len()).expect("it is short");
        [&length.to_be_bytes(), &PROTOCOL_3.to_be_bytes()[..], parameters].concat()
    }

    #[test]
    fn a_writers_session_is_known_by_its_name_after_a_request_for_tls() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 8, 4, 210, 22, 47][..]);
        let message = startup(b"user\0skald\0application_name\0skald-writer\0\0");
        buffer.extend_from_slice(&message[..20]);
        assert_eq!(Opening::take(&mut buffer), Some(Opening::Encryption));
        assert_eq!(Opening::take(&mut buffer), None, "it has not arrived yet");
        buffer.extend_from_slice(&message[20..]);
        let application = "skald-writer".to_owned();
        assert_eq!(Opening::take(&mut buffer), Some(Opening::Startup { application, message: message.into() }));
    }

    #[test]
    fn messages_come_off_one_by_one_and_an_error_tells_its_code() {
        let mut buffer = BytesMut::from(&b"S\0\0\0\x04E\0\0\0\x15SERROR\0CSK001\0\0\0C\0"[..]);
        assert_eq!(Frame::take(&mut buffer).map(|frame| frame.kind), Some(b'S'));
        let error = Frame::take(&mut buffer).expect("it is whole");
        assert_eq!((error.kind, error.code().as_deref()), (b'E', Some("SK001")));
        assert_eq!(Frame::take(&mut buffer), None);
    }
}
