//! Just enough of CEL's lexical rules to find where an expression ends and to refuse what would nest too deep for the
//! parser's stack.

use super::CHARS_MAX;

/// Levels of brackets, and of conditionals, in one expression.
pub(super) const NESTING_MAX: usize = 24;
/// Operators and separators in one expression; each can make the syntax tree one level deeper.
pub(super) const OPERATORS_MAX: usize = 400;

/// Finds the `}` that ends an expression; `text` begins after its `${`. Braces in strings and map literals are skipped.
pub(super) fn closing_brace(text: &str) -> Result<usize, &'static str> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at = string_end(bytes, at, quote).ok_or("a string in it has no closing quote")?;
                continue;
            }
            b'{' => depth += 1,
            b'}' if depth == 0 => return Ok(at),
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    Err("`${` has no closing `}`; write `$${` for a literal `${`")
}

/// Refuses text that is too long, nested or busy to be parsed within a bounded stack.
pub(super) fn check_size(text: &str) -> Result<(), &'static str> {
    if text.chars().count() > CHARS_MAX {
        return Err("it is longer than 4096 characters");
    }
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut conditionals, mut operators) = (0, 0_usize, 0_usize, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at = string_end(bytes, at, quote).ok_or("a string has no closing quote")?;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => return Err("comments are not supported in expressions"),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'?' => conditionals += 1,
            b'+' | b'-' | b'*' | b'/' | b'%' | b'!' | b'<' | b'>' | b'=' | b'&' | b'|' | b'.' | b',' | b':' => {
                operators += 1
            }
            // `in`, and calls without any of the above, are separated by blanks.
            b' ' | b'\t' | b'\n' | b'\r' if at > 0 && !bytes[at - 1].is_ascii_whitespace() => operators += 1,
            _ => {}
        }
        if depth > NESTING_MAX || conditionals > NESTING_MAX {
            return Err("it nests deeper than 24 levels");
        }
        if operators > OPERATORS_MAX {
            return Err("it has more than 400 operators");
        }
        at += 1;
    }
    Ok(())
}

/// The index after the string literal that opens at `at`: single or triple quoted, raw or not.
fn string_end(bytes: &[u8], at: usize, quote: u8) -> Option<usize> {
    let raw = matches!(bytes[..at].last(), Some(b'r' | b'R'))
        && !matches!(bytes[..at], [.., before, _] if is_word(before) && !matches!(before, b'b' | b'B'));
    let triple = bytes[at..].starts_with(&[quote; 3]);
    let mut next = at + if triple { 3 } else { 1 };
    while next < bytes.len() {
        match bytes[next] {
            b'\\' if !raw => next += 1,
            byte if byte == quote && !triple => return Some(next + 1),
            byte if byte == quote && bytes[next..].starts_with(&[quote; 3]) => return Some(next + 3),
            _ => {}
        }
        next += 1;
    }
    None
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_brace_is_found_past_strings_and_maps() {
        for (text, end) in [
            ("a}", 1),
            ("'}'}", 3),
            ("\"}\" + '}'}", 9),
            ("{'a': {'b': 1}}.a}", 17),
            (r"'\'}'}", 5),
            (r"r'\'}", 4),
            ("'''}'}'''}", 9),
            ("}", 0),
        ] {
            assert_eq!(closing_brace(text), Ok(end), "{text}");
        }
        for text in ["", "a", "'}", "{}", r"'\'}"] {
            assert!(closing_brace(text).is_err(), "{text}");
        }
    }
}
