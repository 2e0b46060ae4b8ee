//! llama-bench's values: lists, ranges, pairs. An option may be given several times; its lists are joined.

use engine::KvType;

use crate::options::{GpuLayers, kv_type};
use crate::values;

/// The most numbers that one option may list.
const MOST: usize = 1000;

/// One or several values of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

/// The values of an option given any number of times, or the default.
pub fn joined<T: Clone>(given: &[List<T>], default: T) -> Vec<T> {
    let all: Vec<T> = given.iter().flat_map(|list| list.0.iter().cloned()).collect();
    if all.is_empty() { vec![default] } else { all }
}

/// Numbers: `a,b`, `first-last`, `first-last+step`, `first-last*factor`.
pub fn numbers(text: &str) -> Result<List<usize>, String> {
    let mut out = Vec::new();
    for part in parts(text)? {
        if part.strip_prefix('-').is_some_and(|rest| rest.parse::<u32>().is_ok()) {
            return Err(format!("{part} is no number of tokens: write one from 0 on"));
        }
        match part.split_once('-') {
            None => out.push(number(part)?),
            Some((first, rest)) => range(part, first, rest, &mut out)?,
        }
        if out.len() > MOST {
            return Err(format!("{text:?} is more than {MOST} numbers"));
        }
    }
    Ok(List(out))
}

/// Numbers of at least one thing each.
pub fn counts(text: &str) -> Result<List<usize>, String> {
    let list = numbers(text)?;
    if list.0.contains(&0) { Err("expected numbers from 1 on".into()) } else { Ok(list) }
}

/// Numbers of threads; 0 and -1 are one a core, which is none here.
pub fn threads(text: &str) -> Result<List<Option<usize>>, String> {
    let mut out = Vec::new();
    for part in parts(text)? {
        if part.starts_with('-') {
            out.push(values::threads(part)?.0);
            continue;
        }
        for number in numbers(part)?.0 {
            out.push(values::threads(&number.to_string())?.0);
        }
    }
    if out.len() > MOST {
        return Err(format!("{text:?} is more than {MOST} numbers"));
    }
    Ok(List(out))
}

/// Numbers of layers on the GPU, of which each may be -1, `auto` or `all`.
pub fn layers(text: &str) -> Result<List<GpuLayers>, String> {
    let mut out = Vec::new();
    for part in parts(text)? {
        match part.parse() {
            Ok(layers) => out.push(layers),
            Err(why) if part.starts_with('-') => return Err(why),
            Err(_) => out.extend(numbers(part)?.0.into_iter().map(GpuLayers::Count)),
        }
    }
    Ok(List(out))
}

/// A prompt's length and a number of tokens after it: `512,128`.
pub fn pair(text: &str) -> Result<(usize, usize), String> {
    let expected = || "expected two numbers, a prompt's length and tokens to generate: 512,128";
    let (prompt, generate) = text.split_once(',').ok_or_else(expected)?;
    match (number(prompt), number(generate)) {
        (Ok(prompt), Ok(generate)) => Ok((prompt, generate)),
        _ => Err(expected().into()),
    }
}

/// Types of the cache.
pub fn types(text: &str) -> Result<List<KvType>, String> {
    parts(text)?.into_iter().map(kv_type).collect::<Result<_, _>>().map(List)
}

/// Whether the file is mapped, by `--mmap`.
pub fn maps(text: &str) -> Result<List<bool>, String> {
    let map = |part| match part {
        "1" | "true" | "on" | "enabled" => Ok(true),
        "0" | "false" | "off" | "disabled" => Ok(false),
        _ => Err("expected 0 or 1".to_string()),
    };
    parts(text)?.into_iter().map(map).collect::<Result<_, _>>().map(List)
}

/// Whether the file is mapped, by llama-bench's later `--load-mode`.
pub fn load_modes(text: &str) -> Result<List<bool>, String> {
    let map = |part| {
        match part {
        "mmap" | "auto" => Ok(true),
        "none" => Ok(false),
        _ => Err("expected mmap or none: nothing is locked into memory, nor read past the system's cache".to_string()),
    }
    };
    parts(text)?.into_iter().map(map).collect::<Result<_, _>>().map(List)
}

/// How attention is computed: [`values::flash_attention`] of each.
pub fn flash_attention(text: &str) -> Result<(), String> {
    let all =
        parts(text)?.into_iter().map(values::flash_attention).collect::<Result<Vec<()>, _>>()?;
    match all.len() {
        1 => Ok(()),
        _ => Err("every value of it is measured alike: write one".into()),
    }
}

/// The parts between commas; a comma at the end is none too many.
fn parts(text: &str) -> Result<Vec<&str>, String> {
    let parts: Vec<&str> =
        text.strip_suffix(',').unwrap_or(text).split(',').map(str::trim).collect();
    if parts.contains(&"") {
        Err(format!("{text:?} lists nothing, or nothing between commas"))
    } else {
        Ok(parts)
    }
}

fn number(word: &str) -> Result<usize, String> {
    // No plus sign, which belongs to a range's step.
    match word.parse::<u32>() {
        Ok(number) if !word.starts_with('+') => Ok(number as usize),
        _ => Err(format!(
            "{word:?} is no number from 0 to 2^32-1; write lists 1,2 or ranges 1-8, 16-64+16, 16-64*2"
        )),
    }
}

fn range(part: &str, first: &str, rest: &str, out: &mut Vec<usize>) -> Result<(), String> {
    let (last, step, factor) = if let Some((last, step)) = rest.split_once('+') {
        (last, number(step)?, 1)
    } else if let Some((last, factor)) = rest.split_once('*') {
        (last, 0, number(factor)?)
    } else {
        (rest, 1, 1)
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!("{part:?} runs backwards: the smaller number comes first"));
    }
    let mut at = first;
    while at <= last && out.len() <= MOST {
        out.push(at);
        let next = at * factor + step;
        if next <= at && at < last {
            return Err(format!("{part:?} never grows beyond {at}"));
        }
        at = next.max(at + 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_and_ranges() {
        for (text, expected) in [
            ("512", &[512][..]),
            ("1,2,8", &[1, 2, 8]),
            ("1,2,", &[1, 2]),
            ("1-4", &[1, 2, 3, 4]),
            ("4-4", &[4]),
            ("16-64+16", &[16, 32, 48, 64]),
            ("1-64+40", &[1, 41]),
            ("16-64*2,7", &[16, 32, 64, 7]),
            ("0,512", &[0, 512]),
        ] {
            assert_eq!(numbers(text).unwrap().0, expected, "{text}");
        }
        for bad in [
            "",
            ",",
            "1,,2",
            "x",
            "1-",
            "-1",
            "1-2+x",
            "4-2",
            "1-8+0",
            "0-8*2",
            "1-8*1",
            "+3",
            "1 2",
            "1e3",
            "2.5",
            "99999999999",
            "0-4294967295",
            "1-2-3",
        ] {
            assert!(numbers(bad).is_err(), "{bad}");
        }
        assert_eq!(pair("8,4"), Ok((8, 4)));
        for bad in ["8", "8,", "8,4,2", "-8,4", ",", ""] {
            assert!(pair(bad).unwrap_err().contains("512,128"), "{bad}");
        }
        assert_eq!(threads("-1").unwrap().0, [None]);
        assert_eq!(threads("1,-1").unwrap().0, [Some(1), None]);
        assert!(numbers("8,-1").unwrap_err().starts_with("-1 is no number of tokens"));
        assert_eq!(threads("0,2-3").unwrap().0, [None, Some(2), Some(3)]);
        let layers =
            |text| layers(text).unwrap().0.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(layers("-1,0,99,all,2-3"), ["-1", "0", "99", "all", "2", "3"]);
        assert!(super::layers("-7").is_err());
        assert_eq!(maps("0,1").unwrap().0, [false, true]);
        assert_eq!(maps("enabled,disabled").unwrap().0, [true, false]);
        assert_eq!(load_modes("mmap,none").unwrap().0, [true, false]);
        assert!(load_modes("mlock").is_err());
        assert_eq!(types("f16,q8_0").unwrap().0, [KvType::F16, KvType::Q8_0]);
        assert!(
            flash_attention("1").is_ok()
                && flash_attention("0").is_err()
                && flash_attention("1,on").is_err()
        );
        assert_eq!(joined::<u8>(&[], 3), [3]);
        assert_eq!(joined(&[List(vec![1]), List(vec![2, 1])], 3), [1, 2, 1]);
    }

    proptest! {
        /// A range is what counting by hand gives.
        #[test]
        fn ranges_count(first in 0usize..200, span in 0usize..200, step in 1usize..50, factor in 2usize..5) {
            let last = first + span;
            let by_step: Vec<usize> = (first..=last).step_by(step).collect();
            prop_assert_eq!(numbers(&format!("{first}-{last}+{step}")).unwrap().0, by_step);
            let powers = std::iter::successors(Some(first), |at| Some(at * factor));
            let powers: Vec<usize> = powers.take_while(|at| *at <= last).take(300).collect();
            if first > 0 {
                prop_assert_eq!(numbers(&format!("{first}-{last}*{factor}")).unwrap().0, powers);
            }
        }

        /// Any text is a list or refused, at once and with bounded memory.
        #[test]
        fn any_text_has_an_answer(text in "[0-9,*+-]{0,24}|.{0,12}") {
            if let Ok(list) = numbers(&text) {
                prop_assert!(!list.0.is_empty() && list.0.len() <= MOST + 1);
            }
            let _ = (layers(&text), pair(&text), threads(&text), types(&text), maps(&text));
        }
    }
}
