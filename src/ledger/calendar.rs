//! Days: as files write them, in the form that somebody says, never guessed.
//!
//! Owns: reading dates by a pattern, and the way between days and milliseconds. Does not: know time zones: all is UTC.
//! Called by: `import`, `statement`, the routes.

use std::fmt;
use std::str::FromStr;

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// The pattern of dates unless another is given (ISO 8601).
pub const ISO: &str = "%Y-%m-%d";

/// A day of the Gregorian calendar, from the year 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    year: u16,
    month: u8,
    day: u8,
}

/// Not a day as `2019-03-01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a day such as 2019-03-01")]
pub struct NoDay;

impl Day {
    fn new(year: u32, month: u32, day: u32) -> Option<Self> {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days = match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        ((1..=9999).contains(&year) && (1..=days).contains(&day)).then_some(Self {
            year: u16::try_from(year).ok()?,
            month: u8::try_from(month).ok()?,
            day: u8::try_from(day).ok()?,
        })
    }

    /// Its first millisecond since the Unix epoch. Algorithm `days_from_civil` of H. Hinnant, "chrono-compatible
    /// low-level date algorithms".
    #[must_use]
    pub fn start_ms(self) -> i64 {
        let (month, day) = (i64::from(self.month), i64::from(self.day));
        let year = i64::from(self.year) - i64::from(month <= 2);
        let (era, of_era) = (year / 400, year % 400);
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        days * DAY_MS
    }

    /// The day of this moment; the last one there is for later ones, the first for earlier ones.
    #[must_use]
    pub fn of_ms(ms: i64) -> Self {
        let days = ms.clamp(0, 253_402_300_799_999) / DAY_MS + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let fits = |number: i64| u32::try_from(number).unwrap_or_default();
        let (year, day) = (
            era * 400 + year + i64::from(month <= 2),
            of_year - (153 * shifted + 2) / 5 + 1,
        );
        Self::new(fits(year), fits(month), fits(day)).unwrap_or(Self {
            year: 1970,
            month: 1,
            day: 1,
        })
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl FromStr for Day {
    type Err = NoDay;

    fn from_str(text: &str) -> Result<Self, NoDay> {
        let well_formed = text.len() == 10 && text.is_ascii();
        let found = well_formed.then(|| Pattern::iso().find(text)).flatten();
        found.map(|(day, _)| day).ok_or(NoDay)
    }
}

/// How dates are written: the words of `strftime` (POSIX) `%Y %m %d %H %M %S %%`; everything else stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Plain(char),
}

/// Not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have %Y, %m and %d once each, at will %H, %M and %S, and no other word with %")]
pub struct NoPattern;

impl Pattern {
    /// [`ISO`].
    #[must_use]
    pub fn iso() -> Self {
        use Part::{Day, Month, Plain, Year};
        Self {
            text: ISO.to_owned(),
            parts: vec![Year, Plain('-'), Month, Plain('-'), Day],
        }
    }

    /// The text that it was made of.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The moment that a text names, in milliseconds since the Unix epoch; none when it is not of this form. Months and
    /// days may lack their leading zero, years have four digits.
    #[must_use]
    pub fn read(&self, text: &str) -> Option<i64> {
        let (day, seconds) = self.find(text)?;
        Some(day.start_ms() + seconds * 1000)
    }

    /// The day, and the seconds since its begin.
    fn find(&self, text: &str) -> Option<(Day, i64)> {
        let (mut rest, mut found) = (text.trim(), [0_u32; 6]);
        for part in &self.parts {
            let (slot, most, least) = match part {
                Part::Plain(character) => {
                    rest = rest.strip_prefix(*character)?;
                    continue;
                }
                Part::Year => (0, 4, 4),
                Part::Month => (1, 2, 1),
                Part::Day => (2, 2, 1),
                Part::Hour => (3, 2, 1),
                Part::Minute => (4, 2, 2),
                Part::Second => (5, 2, 2),
            };
            let digits = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
            if digits < least {
                return None;
            }
            found[slot] = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
        }
        let [year, month, day, hour, minute, second] = found;
        if !rest.is_empty() || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        Some((
            Day::new(year, month, day)?,
            i64::from(hour * 3600 + minute * 60 + second),
        ))
    }
}

impl FromStr for Pattern {
    type Err = NoPattern;

    fn from_str(text: &str) -> Result<Self, NoPattern> {
        let (mut parts, mut characters) = (Vec::new(), text.chars());
        while let Some(character) = characters.next() {
            if character != '%' {
                parts.push(Part::Plain(character));
                continue;
            }
            let part = match characters.next().ok_or(NoPattern)? {
                'Y' => Part::Year,
                'm' => Part::Month,
                'd' => Part::Day,
                'H' => Part::Hour,
                'M' => Part::Minute,
                'S' => Part::Second,
                '%' => Part::Plain('%'),
                _ => return Err(NoPattern),
            };
            if parts.contains(&part) && part != Part::Plain('%') {
                return Err(NoPattern);
            }
            parts.push(part);
        }
        let whole = [Part::Year, Part::Month, Part::Day]
            .iter()
            .all(|part| parts.contains(part));
        if !whole {
            return Err(NoPattern);
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn day(text: &str) -> Day {
        text.parse().unwrap()
    }

    #[test]
    fn days_and_moments_go_to_and_fro() {
        assert_eq!(day("1970-01-01").start_ms(), 0);
        assert_eq!(day("1969-12-31").start_ms(), -DAY_MS);
        assert_eq!(day("0001-01-01").start_ms(), -62_135_596_800_000);
        assert_eq!(day("2019-03-01").start_ms(), 1_551_398_400_000);
        assert_eq!(day("9999-12-31").start_ms(), 253_402_214_400_000);
        let mut before = None;
        for number in 0..(365 * 60) {
            let day = Day::of_ms(number * DAY_MS + 5);
            assert_eq!(day.start_ms(), number * DAY_MS, "{day}");
            assert!(before < Some(day));
            assert_eq!(day.to_string().parse(), Ok(day));
            before = Some(day);
        }
        for none in [
            "2019-02-29",
            "2019-13-01",
            "2019-1-1",
            "0000-12-31",
            "2019-03-01T",
            "2019-00-10",
            "",
        ] {
            assert_eq!(none.parse::<Day>(), Err(NoDay), "{none}");
        }
        assert_eq!(day("2020-02-29").to_string(), "2020-02-29");
    }

    #[test]
    fn a_date_is_read_by_its_pattern_only() {
        let first: Pattern = "%d/%m/%Y".parse().unwrap();
        assert_eq!(first.read("01/03/2019"), Some(day("2019-03-01").start_ms()));
        assert_eq!(first.read("1/3/2019"), Some(day("2019-03-01").start_ms()));
        for none in [
            "2019-03-01",
            "31/02/2019",
            "03/13/2019",
            "01/03/19",
            "01/03/2019 x",
            "é1/03/2019",
        ] {
            assert_eq!(first.read(none), None, "{none}");
        }
        let timed: Pattern = "%Y-%m-%d %H:%M:%S".parse().unwrap();
        assert_eq!(timed.read("1970-01-02 03:04:05"), Some(DAY_MS + 11_045_000));
        assert_eq!(timed.read("1970-01-02 24:00:00"), None);
        for bad in ["", "%Y-%m", "%d/%m/%y", "%Y%Y%m%d", "%"] {
            assert_eq!(bad.parse::<Pattern>(), Err(NoPattern), "{bad}");
        }
        assert_eq!(ISO.parse(), Ok(Pattern::iso()));
    }
}
