//! Money: integer minor units, and the words in which people and files write them.
//!
//! Owns: reading and writing amounts, and the channel's share of a fee. Does not: divide a pool (`royalties` does).
//! Called by: `import`, `statement`, `royalties`. No floating point anywhere.

use std::fmt;

/// A whole, in basis points (hundredths of a percent).
pub const WHOLE: u32 = 10_000;

/// ISO 4217 currencies (list one, 2024) whose minor unit is not a hundredth.
const NO_MINOR: [&str; 16] = [
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF",
    "XOF",
];
const THOUSANDTHS: [&str; 7] = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];

/// The largest fee in minor units: sums over any number of subscribers stay far below the range of `i128`.
pub const MAX_FEE: i64 = 1_000_000_000_000;

/// A currency: three capital letters (ISO 4217).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Currency(String);

impl Currency {
    /// Reads a currency, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_alphabetic());
        fits.then(|| Self(text.to_ascii_uppercase()))
    }

    /// The three letters.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0
    }

    /// Decimals of an amount.
    #[must_use]
    pub fn decimals(&self) -> u32 {
        match &*self.0 {
            code if NO_MINOR.contains(&code) => 0,
            code if THOUSANDTHS.contains(&code) => 3,
            _ => 2,
        }
    }

    /// Minor units as a decimal number with a point: 735 is `7.35` in EUR.
    #[must_use]
    pub fn write(&self, minor: i128) -> String {
        let decimals = self.decimals();
        let unit = 10_u128.pow(decimals);
        let (sign, amount) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs());
        if decimals == 0 {
            return format!("{sign}{amount}");
        }
        let width = decimals as usize;
        format!("{sign}{}.{:0width$}", amount / unit, amount % unit)
    }

    /// Reads what [`Currency::write`] wrote; anything else is nothing.
    #[must_use]
    pub fn parse_amount(&self, text: &str) -> i128 {
        text.replace('.', "").parse().unwrap_or_default()
    }

    /// Reads a fee; `comma` says that it is written with a decimal comma.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(&self, text: &str, comma: bool) -> Result<i64, BadAmount> {
        let text = text.trim();
        let (mark, other) = if comma { (',', '.') } else { ('.', ',') };
        if text.contains(other) {
            let lone = text.matches(other).count() == 1 && !text.contains(mark);
            return Err(if lone && !comma {
                BadAmount::Comma
            } else {
                BadAmount::Form
            });
        }
        if text.starts_with('-') {
            return Err(BadAmount::Negative);
        }
        let (whole, part) = text.split_once(mark).unwrap_or((text, ""));
        let is_number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty()
            || !is_number(whole)
            || !is_number(part)
            || (part.is_empty() && text.contains(mark))
        {
            return Err(BadAmount::Form);
        }
        let decimals = self.decimals() as usize;
        let (kept, beyond) = part.split_at(part.len().min(decimals));
        if beyond.bytes().any(|b| b != b'0') {
            return Err(BadAmount::Decimals);
        }
        let digits = format!("{whole}{kept:0<decimals$}");
        let amount = digits.parse().map_err(|_| BadAmount::Large)?;
        if amount > MAX_FEE {
            return Err(BadAmount::Large);
        }
        Ok(amount)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAmount {
    /// Not digits with at most one decimal mark.
    #[error("is no amount")]
    Form,
    /// A decimal comma, which nobody announced.
    #[error("has a decimal comma (is --decimal-comma missing?)")]
    Comma,
    /// Below zero.
    #[error("is negative")]
    Negative,
    /// Parts of the smallest unit.
    #[error("has more decimals than the currency")]
    Decimals,
    /// More than [`MAX_FEE`].
    #[error("is too large")]
    Large,
}

/// What of a fee is the channel's share, rounded half up to the minor unit.
#[must_use]
pub fn net(fee: i64, share: u32) -> i128 {
    let whole = i128::from(WHOLE);
    (i128::from(fee) * i128::from(share) * 2 + whole) / (2 * whole)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn euro() -> Currency {
        Currency::parse("eur").unwrap()
    }

    #[test]
    fn amounts_are_read_as_they_are_written() {
        let euro = euro();
        for (text, comma, minor) in [
            ("7.99", false, 799),
            (" 14.9 ", false, 1490),
            ("7", false, 700),
            ("7,99", true, 799),
            ("7.9900", false, 799),
            ("0", false, 0),
        ] {
            assert_eq!(euro.read(text, comma), Ok(minor), "{text}");
        }
        for (text, comma, why) in [
            ("7,99", false, BadAmount::Comma),
            ("7.99", true, BadAmount::Form),
            ("1.234,56", true, BadAmount::Form),
            ("1,234.56", false, BadAmount::Form),
            ("7.", false, BadAmount::Form),
            ("", false, BadAmount::Form),
            ("+7", false, BadAmount::Form),
            ("7.995", false, BadAmount::Decimals),
            ("-1", false, BadAmount::Negative),
            ("99999999999999999999999", false, BadAmount::Large),
        ] {
            assert_eq!(euro.read(text, comma), Err(why), "{text}");
        }
        assert_eq!(Currency::parse("jpy").unwrap().read("800", false), Ok(800));
        assert_eq!(Currency::parse("KWD").unwrap().read("1.5", false), Ok(1500));
    }

    #[test]
    fn amounts_are_written_with_their_decimals() {
        let euro = euro();
        for (minor, text) in [
            (0, "0.00"),
            (5, "0.05"),
            (735, "7.35"),
            (-5, "-0.05"),
            (1_000_000, "10000.00"),
        ] {
            assert_eq!(euro.write(minor), text);
            assert_eq!(euro.parse_amount(text), minor);
        }
        assert_eq!(Currency::parse("JPY").unwrap().write(800), "800");
        assert_eq!(Currency::parse("euro"), None);
    }

    #[test]
    fn a_share_is_rounded_half_up() {
        for (fee, share, expected) in [
            (799, 7000, 559),
            (1499, 9000, 1349),
            (799, 9000, 719),
            (1499, 7000, 1049),
            (1, 5000, 1),
            (1, 4999, 0),
            (799, 10_000, 799),
            (799, 0, 0),
        ] {
            assert_eq!(net(fee, share), expected, "{fee} x {share}");
        }
    }
}
