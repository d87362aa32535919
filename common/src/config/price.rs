//! Amounts of money.

use std::fmt;
use std::str::FromStr;

/// An amount of money, in millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Price(u64);

impl Price {
    /// What so many of it cost.
    pub fn times(self, many: f64) -> f64 {
        self.0 as f64 / 1e6 * many
    }
}

impl FromStr for Price {
    type Err = ();

    fn from_str(text: &str) -> Result<Price, ()> {
        let (whole, behind) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(behind) || behind.len() > 6 || text.ends_with('.') {
            return Err(());
        }
        let whole: u64 = whole.parse().map_err(|_| ())?;
        let millionths: u64 = format!("{behind:0<6}").parse().map_err(|_| ())?;
        whole.checked_mul(1_000_000).and_then(|all| all.checked_add(millionths)).map(Price).ok_or(())
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_exact_or_refused() {
        for (text, millionths) in
            [("0.023", 23_000), ("0", 0), ("12", 12_000_000), ("0.0004", 400), ("1.000001", 1_000_001)]
        {
            let price: Price = text.parse().expect("a price");
            assert_eq!((price, price.to_string().as_str()), (Price(millionths), text));
        }
        for text in ["", ".", "1.", ".5", "-1", "1e3", "0.0000001", "1,5", "99999999999999999999", "NaN", "0.02 USD"] {
            assert_eq!(text.parse::<Price>(), Err(()), "{text:?}");
        }
        assert!((Price(23_000).times(1000.0) - 23.0).abs() < 1e-9);
    }
}
