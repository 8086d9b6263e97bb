//! Bytes as hexadecimal digits, for tags and digests in headers.

use std::fmt::Write as _;

#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

/// Exactly so many bytes; None when the text is anything else.
#[must_use]
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_back_as_they_were_written() {
        let bytes = [0, 1, 0x0a, 0x7f, 0xa0, 0xff];
        assert_eq!(encode(&bytes), "00010a7fa0ff");
        assert_eq!(decode("00010a7fA0FF"), Some(bytes));
        for text in ["", "00010a7fa0f", "00010a7fa0ff00", "00010a7fa0fg", "üüüüüü"] {
            assert_eq!(decode::<6>(text), None, "{text}");
        }
    }
}
