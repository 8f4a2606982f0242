//! Values as people write them: times, sizes, lists.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A time with its unit: `75ms`, `1.5s`, `2m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no time; write a number and its unit: 75ms, 1.5s, 2m, 1h");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let unit = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        // To the microsecond, or a tenth of a second would not be 100 ms.
        let micros = (number * unit * 1e6).round();
        if micros > 1e15 {
            return Err(format!("`{text}` is too long"));
        }
        Ok(Self(Duration::from_micros(micros as u64)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_secs_f64() * 1e3;
        match self.0 {
            time if time < Duration::from_secs(1) => write!(f, "{millis}ms"),
            time if time.as_millis().is_multiple_of(60_000) && !time.is_zero() => {
                write!(f, "{}m", time.as_secs() / 60)
            }
            time => write!(f, "{}s", time.as_secs_f64()),
        }
    }
}

/// Bytes: a number, or with a unit: `64KiB`, `1.5MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no size; write bytes, or a number and its unit: 64KiB, 1.5MiB, 1GiB");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let unit = match unit {
            "" | "B" => 1.0,
            "KiB" => f64::from(1 << 10),
            "MiB" => f64::from(1 << 20),
            "GiB" => f64::from(1 << 30),
            _ => return Err(wrong()),
        };
        Ok(Self((number * unit).round() as u64))
    }
}

/// A number that is not negative, and what follows it.
fn split(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim()))
}

/// Texts with commas or blanks between them, or a list of such.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List(pub(crate) Vec<String>);

impl FromStr for List {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let between = |c: char| c == ',' || c.is_whitespace();
        Ok(Self(text.split(between).filter(|part| !part.is_empty()).map(str::to_owned).collect()))
    }
}

/// Reads a value from a text, a number or a list of texts, whichever it takes.
struct Read<T> {
    expected: &'static str,
    text: fn(&str) -> Result<T, String>,
    number: Option<fn(u64) -> T>,
    list: Option<fn(Vec<String>) -> T>,
}

impl<'de, T> Visitor<'de> for Read<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        match (self.number, u64::try_from(number)) {
            (Some(read), Ok(number)) => Ok(read(number)),
            _ => Err(E::invalid_type(de::Unexpected::Signed(number), &self)),
        }
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        let Some(read) = self.list else { return Err(de::Error::invalid_type(de::Unexpected::Seq, &self)) };
        let mut all = Vec::new();
        while let Some(text) = seq.next_element::<String>()? {
            all.push(text);
        }
        Ok(read(all))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a time with its unit, as \"75ms\", \"1.5s\" or \"2m\"";
        from.deserialize_any(Read { expected, text: str::parse, number: None, list: None })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a number of bytes, or a size with its unit, as \"64KiB\"";
        from.deserialize_any(Read { expected, text: str::parse, number: Some(Self), list: None })
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "addresses, as \"a:7500,b:7500\" or [\"a:7500\", \"b:7500\"]";
        let text = |text: &str| text.parse().map_err(|never: std::convert::Infallible| match never {});
        from.deserialize_any(Read { expected, text, number: None, list: Some(Self) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units_and_are_told_as_they_are_written() {
        for (text, millis) in [("75ms", 75), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            let time: Time = text.parse().unwrap();
            assert_eq!(time.0.as_millis(), millis, "{text}");
            assert_eq!(time.to_string().parse(), Ok(time), "{text}");
        }
        assert_eq!("1.5MiB".parse(), Ok(Size(3 << 19)));
        assert_eq!("77".parse(), Ok(Size(77)));
        for bad in ["75", "ms", "-1s", "1.2.3s", "1 d", "1e9h", "99999999999h"] {
            assert!(bad.parse::<Time>().is_err(), "{bad}");
        }
        assert!("64KB".parse::<Size>().is_err(), "who writes KB may mean either");
    }
}
