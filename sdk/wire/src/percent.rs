//! What part of all is it?

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A percentage from 0 to 100, exact to six decimals: `"12.5%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Percent(u32);

impl Percent {
    /// Of so many parts, all make 100 %.
    pub const PARTS: u32 = 100_000_000;

    /// How many of them it is.
    pub fn parts(self) -> u32 {
        self.0
    }
}

impl FromStr for Percent {
    type Err = String;

    /// Reads the digits before the sign: `10`, `0.5`.
    fn from_str(text: &str) -> Result<Percent, String> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || !all_digits(decimals) || decimals.len() > 6 {
            return Err(format!("`{text}%` is no percentage: give at most six decimals, as in `12.5%`"));
        }
        let parts = format!("{whole}{decimals:0<6}").parse().ok();
        match parts.filter(|parts| *parts <= Percent::PARTS) {
            Some(parts) => Ok(Percent(parts)),
            None => Err(format!("`{text}%` is more than all, which is `100%`")),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        write!(f, "{}%", digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl TryFrom<String> for Percent {
    type Error = String;

    fn try_from(text: String) -> Result<Percent, String> {
        match text.strip_suffix('%') {
            Some(percent) => percent.parse(),
            None => Err(format!("`{text}` is no percentage: give one with its sign, as in `12.5%`")),
        }
    }
}

impl From<Percent> for String {
    fn from(percent: Percent) -> String {
        percent.to_string()
    }
}
