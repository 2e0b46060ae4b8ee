//! `strftime_now`: a time as Python's `strftime` writes it, in the C locale.

use std::fmt::Write as _;

use chrono::{Datelike as _, NaiveDateTime, Timelike as _};

/// A time by a format. What is no conversion stays as it is written.
pub(super) fn strftime(time: &NaiveDateTime, format: &str) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let spec = &rest[at..];
        let inside = spec[1..].trim_start_matches(['-', '_', '0', '^', '#']);
        let flags = &spec[1..spec.len() - inside.len()];
        let digits = inside.chars().take_while(char::is_ascii_digit).count();
        let width: Option<usize> = inside[..digits].parse().ok().filter(|width| *width <= 64);
        let letter = inside[digits..].trim_start_matches(['E', 'O']);
        let Some(conversion) = letter.chars().next() else {
            out.push_str(spec);
            rest = "";
            break;
        };
        let length = spec.len() - letter.len() + conversion.len_utf8();
        match converted(time, conversion) {
            Some((text, fill)) => out.push_str(&adorned(text, fill, flags, width)),
            None => out.push_str(&spec[..length]),
        }
        rest = &spec[length..];
    }
    out.push_str(rest);
    out
}

/// How a field is filled: with zeros or spaces up to a width.
type Fill = (char, usize);

fn adorned(text: String, fill: Fill, flags: &str, width: Option<usize>) -> String {
    let (mut with, mut least) = fill;
    let mut text = text;
    for flag in flags.chars() {
        match flag {
            '-' => least = 0,
            '_' => with = ' ',
            '0' => with = '0',
            '^' => text = text.to_uppercase(),
            _ if text.chars().any(char::is_lowercase) => text = text.to_uppercase(),
            _ => text = text.to_lowercase(),
        }
    }
    let least = width.unwrap_or(least);
    let missing = least.saturating_sub(text.chars().count());
    let fill: String = std::iter::repeat_n(with, missing).collect();
    fill + &text
}

/// A conversion's text and how it is filled; none for a letter that is none.
fn converted(time: &NaiveDateTime, conversion: char) -> Option<(String, Fill)> {
    let word = |text: String| Some((text, (' ', 0)));
    let zeros = |number: i64, width: usize| Some((number.to_string(), ('0', width)));
    let spaces = |number: i64| Some((number.to_string(), (' ', 2)));
    let by = |format: &str| {
        let mut text = String::new();
        _ = write!(text, "{}", time.format(format));
        word(text)
    };
    let hour12 = i64::from(time.hour12().1);
    match conversion {
        'a' | 'A' | 'b' | 'B' | 'h' | 'p' | 'P' | 'c' => by(&format!("%{conversion}")),
        'D' | 'x' => by("%m/%d/%y"),
        'F' => by("%Y-%m-%d"),
        'T' | 'X' => by("%H:%M:%S"),
        'R' => by("%H:%M"),
        'r' => by("%I:%M:%S %p"),
        'C' => zeros(i64::from(time.year().div_euclid(100)), 2),
        'd' => zeros(time.day().into(), 2),
        'e' => spaces(time.day().into()),
        'f' => zeros((time.nanosecond() / 1000).into(), 6),
        'g' => zeros(time.iso_week().year().rem_euclid(100).into(), 2),
        'G' => zeros(time.iso_week().year().into(), 0),
        'H' => zeros(time.hour().into(), 2),
        'I' => zeros(hour12, 2),
        'j' => zeros(time.ordinal().into(), 3),
        'k' => spaces(time.hour().into()),
        'l' => spaces(hour12),
        'm' => zeros(time.month().into(), 2),
        'M' => zeros(time.minute().into(), 2),
        'n' => word("\n".into()),
        's' => word(time.and_utc().timestamp().to_string()),
        'S' => zeros(time.second().into(), 2),
        't' => word("\t".into()),
        'u' => zeros(time.weekday().number_from_monday().into(), 1),
        'U' => zeros(((time.ordinal0() + 7 - time.weekday().num_days_from_sunday()) / 7).into(), 2),
        'V' => zeros(time.iso_week().week().into(), 2),
        'w' => zeros(time.weekday().num_days_from_sunday().into(), 1),
        'W' => zeros(((time.ordinal0() + 7 - time.weekday().num_days_from_monday()) / 7).into(), 2),
        'y' => zeros(time.year().rem_euclid(100).into(), 2),
        'Y' => zeros(time.year().into(), 0),
        // A time of nowhere in particular has no zone.
        'z' | 'Z' => word(String::new()),
        '%' => word("%".into()),
        _ => None,
    }
}
