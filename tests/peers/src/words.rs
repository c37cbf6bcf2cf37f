//! The command line: words `NAME=VALUE`.

use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// The words by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words(BTreeMap<String, String>);

impl Words {
    /// Reads the words.
    pub(crate) fn new(words: impl Iterator<Item = String>) -> Result<Words> {
        let split = |word: String| {
            let (name, value) = word
                .split_once('=')
                .with_context(|| format!("the word {word} is not of the form NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        Ok(Words(words.map(split).collect::<Result<_>>()?))
    }

    /// A word's value.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a word that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<&str> {
        self.text(name).with_context(|| format!("the word {name}= is missing"))
    }

    /// A word's value as a number greater than zero.
    pub(crate) fn number(&self, name: &str) -> Result<usize> {
        let number = self.required(name)?.parse().ok().filter(|&n| n > 0);
        number.with_context(|| format!("{name}= needs a number greater than 0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_by_name() {
        let of = |text: &str| Words::new(text.split(' ').map(str::to_owned));
        let words = of("pages=12 link=tcp none=0").unwrap();
        assert_eq!(words.number("pages").unwrap(), 12);
        assert_eq!(words.text("link"), Some("tcp"));
        for name in ["none", "link", "absent"] {
            assert!(words.number(name).is_err(), "{name}");
        }
        assert!(words.required("absent").is_err());
        assert!(of("pages").is_err());
    }
}
