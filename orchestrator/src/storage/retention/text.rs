//! Columns in the archive: JSON that is kept byte by byte, bytes as hexadecimal digits.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;
use sqlx::Type;

/// JSON text as it was stored. In the archive it is JSON too, so that people can read it; where that would not keep every
/// byte on one line, it is a string that holds the text.
#[derive(Clone, Debug, PartialEq, Eq, Type)]
#[sqlx(transparent)]
pub struct JsonText(pub String);

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let one_line = self.0.starts_with('{') && !self.0.contains(['\n', '\r']);
        let raw = if one_line { serde_json::from_str::<&RawValue>(&self.0).ok() } else { None };
        match raw.filter(|raw| raw.get().len() == self.0.len()) {
            Some(raw) => raw.serialize(serializer),
            None => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if raw.get().starts_with('"') {
            return serde_json::from_str(raw.get()).map(Self).map_err(D::Error::custom);
        }
        Ok(Self(raw.get().to_owned()))
    }
}

/// For `#[serde(with = ..)]`.
pub mod hex_bytes {
    use super::{Deserialize, Deserializer, Serializer};
    use crate::hex;

    #[expect(clippy::ref_option, reason = "serde asks for it")]
    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&hex::encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let bytes = hex::decode::<32>(&text).ok_or_else(|| serde::de::Error::custom("not 32 bytes in hexadecimal"))?;
        Ok(Some(bytes.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_json_text_comes_back_and_never_a_second_line() {
        for (text, readable) in [
            (r#"{"total":1.50e400,"a":"é\n"}"#, true),
            ("{ \"n\" : 1 }", true),
            ("{\n  \"n\": 1\r\n}", false),
            (" {\"n\":1}", false),
            ("{\"n\":1} ", false),
            ("{broken", false),
            ("\"text\"", false),
            ("null", false),
        ] {
            let line = serde_json::to_string(&JsonText(text.to_owned())).unwrap();
            assert!(!line.contains(['\n', '\r']), "{line}");
            assert_eq!(line == text, readable, "{line}");
            assert_eq!(serde_json::from_str::<JsonText>(&line).unwrap().0, text);
        }
    }
}
