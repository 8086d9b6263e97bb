//! Where two generations of a projection differ.

use serde_json::Value;
use skald_kit::{Db, Failure, params};

use super::progress::{Difference, Line, Progress};

const CHUNK: i64 = 500;
/// So many differences are told in full.
const TOLD_MAX: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) rows: i64,
    pub(super) difference_count: i64,
    pub(super) differences: Vec<Difference>,
}

/// Rows of a generation.
pub(super) async fn count(db: &Db, projection: &str, generation: i64) -> Result<i64, Failure> {
    let sql = "SELECT COUNT(*) AS count FROM view_rows WHERE projection = $1 AND generation = $2";
    let row = db.row(sql, params![projection, generation]).await?.ok_or(sqlx::Error::RowNotFound)?;
    Ok(row.get("count")?)
}

/// Compares every row of both; neither may change meanwhile.
pub(super) async fn compare(
    db: &Db,
    projection: &str,
    live: i64,
    replayed: i64,
    progress: &Progress,
) -> Result<Compared, Failure> {
    let total = count(db, projection, live).await? + count(db, projection, replayed).await?;
    let mut done = 0;
    let mut compared = Compared::default();
    // There and back: what one has and the other has not is seen from one side only.
    for (this, other) in [(live, replayed), (replayed, live)] {
        let (mut key, mut item) = (String::new(), String::new());
        loop {
            let sql = "SELECT a.key, a.item, a.value AS here, b.value AS there FROM view_rows a
                       LEFT JOIN view_rows b ON b.projection = a.projection AND b.generation = $3
                            AND b.key = a.key AND b.item = a.item
                       WHERE a.projection = $1 AND a.generation = $2 AND (a.key, a.item) > ($4, $5)
                       ORDER BY a.key, a.item LIMIT $6";
            let rows = db.rows(sql, params![projection, this, other, &key, &item, CHUNK]).await?;
            for row in &rows {
                (key, item) = (row.get("key")?, row.get("item")?);
                let (here, there): (String, Option<String>) = (row.get("here")?, row.get("there")?);
                let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
                let (here, there) = (parsed(&here), there.as_deref().map(parsed));
                if this == live {
                    compared.rows += 1;
                    if there.as_ref() != Some(&here) {
                        compared.found(&key, &item, here, there.unwrap_or_default());
                    }
                } else if there.is_none() {
                    compared.found(&key, &item, Value::Null, here);
                }
            }
            done += i64::try_from(rows.len()).unwrap_or(0);
            progress.note(Line::Comparing { done, total });
            if rows.is_empty() {
                break;
            }
        }
    }
    Ok(compared)
}

impl Compared {
    fn found(&mut self, key: &str, item: &str, live: Value, replayed: Value) {
        self.difference_count += 1;
        if self.differences.len() < TOLD_MAX {
            self.differences.push(Difference { key: key.to_owned(), item: item.to_owned(), live, replayed });
        }
    }
}
