//! Where in the text each place of the document is, to point a problem's reader at a line.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::{fmt, marker::PhantomData};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::document;
use crate::json::{push_index, push_key};

/// The line, from 1, of every place up to eight levels down. Empty when the text cannot be read.
pub(super) fn of(text: &str) -> BTreeMap<String, u64> {
    let mut lines = BTreeMap::new();
    if let Ok(root) = serde_saphyr::from_str_with_options::<Spanned<Document>>(text, document::yaml_options()) {
        collect(&root, &mut String::new(), &mut lines);
    }
    lines
}

/// Reading values with their lines takes much stack, so deeper ones are skipped: the type is as deep as what is read.
type Document = Node<Node<Node<Node<Node<Node<Node<Node<Below>>>>>>>>;

/// The line of a place, or of the nearest one above it: what is missing has no line of its own.
pub(super) fn find(lines: &BTreeMap<String, u64>, place: &str) -> Option<u64> {
    let mut at = place;
    loop {
        if let Some(line) = lines.get(at) {
            return Some(*line);
        }
        if at.is_empty() {
            return None;
        }
        at = &at[..at.rfind(['.', '[']).unwrap_or(0)];
    }
}

fn collect<S: Shape>(node: &Spanned<S>, place: &mut String, lines: &mut BTreeMap<String, u64>) {
    lines.insert(place.clone(), node.referenced.line());
    node.value.collect(place, lines);
}

/// The shape of a value without its content.
trait Shape {
    fn collect(&self, place: &mut String, lines: &mut BTreeMap<String, u64>);
}

enum Node<Item> {
    Leaf,
    List(Vec<Spanned<Item>>),
    Object(Vec<(String, Spanned<Item>)>),
}

impl<Item: Shape> Shape for Node<Item> {
    fn collect(&self, place: &mut String, lines: &mut BTreeMap<String, u64>) {
        let start = place.len();
        match self {
            Self::Leaf => {}
            Self::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    push_index(place, index);
                    collect(item, place, lines);
                    place.truncate(start);
                }
            }
            Self::Object(fields) => {
                for (key, value) in fields {
                    push_key(place, key);
                    collect(value, place, lines);
                    place.truncate(start);
                }
            }
        }
    }
}

/// Whatever lies below the levels that are read.
struct Below;

impl Shape for Below {
    fn collect(&self, _: &mut String, _: &mut BTreeMap<String, u64>) {}
}

impl<'de> Deserialize<'de> for Below {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl<'de, Item: Deserialize<'de>> Deserialize<'de> for Node<Item> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor(PhantomData))
    }
}

struct NodeVisitor<Item>(PhantomData<Item>);

impl<'de, Item: Deserialize<'de>> Visitor<'de> for NodeVisitor<Item> {
    type Value = Node<Item>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Node<Item>, E> {
        Ok(Node::Leaf)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node<Item>, E> {
        Ok(Node::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node<Item>, E> {
        Ok(Node::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node<Item>, E> {
        Ok(Node::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node<Item>, E> {
        Ok(Node::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node<Item>, E> {
        Ok(Node::Leaf)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<Item>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Node<Item>, A::Error> {
        let mut object = Vec::new();
        while let Some(field) = fields.next_entry()? {
            object.push(field);
        }
        Ok(Node::Object(object))
    }
}
