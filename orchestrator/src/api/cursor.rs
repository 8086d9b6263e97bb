//! Cursors: where a list goes on, signed together with the query they belong to, so that what comes back is what was
//! given out and goes on in the same list.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::problem::{Code, Problem};
use crate::hex;

/// Bytes of the signature that a cursor carries: enough to tell a mistake from a cursor.
const TAG_LEN: usize = 8;
const ID_LEN: usize = 16;

/// Makes cursors and reads them.
#[derive(Clone)]
pub struct Cursors {
    keyed: Hmac<Sha256>,
}

impl Cursors {
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self { keyed: Hmac::new_from_slice(secret).expect("HMAC takes a key of any length") }
    }

    /// The cursor that goes on after what has this id in the list that `query` describes.
    #[must_use]
    pub fn after(&self, id: Uuid, query: &str) -> String {
        let id = id.into_bytes();
        let tag = self.tag(&id, query);
        hex::encode(&[&id[..], &tag].concat())
    }

    /// The id after which the list goes on.
    ///
    /// # Errors
    ///
    /// When this is not a cursor that was given out for this query.
    pub fn read(&self, cursor: &str, query: &str) -> Result<Uuid, Problem> {
        let refused = || {
            let reason = "must be the next_cursor of a page of this list, with the same filters";
            Problem::in_field(Code::InvalidCursor, "cursor", reason)
        };
        let bytes: [u8; ID_LEN + TAG_LEN] = hex::decode(cursor).ok_or_else(refused)?;
        let (id, tag) = bytes.split_at(ID_LEN);
        let id: [u8; ID_LEN] = id.try_into().expect("split there");
        if self.tag(&id, query) != *tag {
            return Err(refused());
        }
        Ok(Uuid::from_bytes(id))
    }

    fn tag(&self, id: &[u8; ID_LEN], query: &str) -> [u8; TAG_LEN] {
        let mac = self.keyed.clone().chain_update(b"cursor\0").chain_update(id).chain_update(query).finalize();
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&mac.into_bytes()[..TAG_LEN]);
        tag
    }
}

impl fmt::Debug for Cursors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cursors([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_query_and_secret_only() {
        let saga: Uuid = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let cursors = Cursors::new(b"secret");
        let cursor = cursors.after(saga, "status=running");
        assert_eq!(cursors.read(&cursor, "status=running").unwrap(), saga);
        let flipped = format!("{}0", &cursor[..cursor.len() - 1]);
        let flipped = if flipped == cursor { format!("{}1", &cursor[..cursor.len() - 1]) } else { flipped };
        for (cursor, query) in [
            (&*cursor, "status=parked"),
            (&*flipped, "status=running"),
            (&cursor[1..], "status=running"),
            ("", "status=running"),
            ("ü", "status=running"),
            (&"z".repeat(48), "status=running"),
        ] {
            assert_eq!(cursors.read(cursor, query).unwrap_err().code(), Code::InvalidCursor, "{cursor}");
        }
        assert!(Cursors::new(b"other").read(&cursor, "status=running").is_err());
    }
}
