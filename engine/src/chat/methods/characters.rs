//! What Python knows of characters: of which kind they are, and their other cases.

use unicode_categories::UnicodeCategories as _;

/// Chinese, Japanese and Korean characters that are numbers as well as letters.
const IDEOGRAPHIC_NUMBERS: &str = "㐅㒃㠪㭍一七万三九二五亖亿什仟仨伍佰億兆兩六十千卄卅卌叁参參叄四壱壹幺廾廿弌弍弎弐拾捌柒漆玖百肆萬貮貳贰阡陆陌陸零";

pub(super) fn is_alpha(c: char) -> bool {
    c.is_letter() || (c.is_alphabetic() && !c.is_mark() && !c.is_number() && !c.is_symbol())
}

pub(super) fn is_decimal(c: char) -> bool {
    c.is_number_decimal_digit()
}

/// The number that a decimal digit of any script stands for.
pub(in super::super) fn decimal_digit(c: char) -> Option<u32> {
    if !is_decimal(c) {
        return None;
    }
    // Digits of a script stand in a row that begins with its zero.
    let before =
        (1..=c as u32).take_while(|back| char::from_u32(c as u32 - back).is_some_and(is_decimal));
    Some(before.count() as u32 % 10)
}

pub(super) fn is_digit(c: char) -> bool {
    is_decimal(c)
        || matches!(c, '²' | '³' | '¹' | '\u{1369}'..='\u{1371}' | '\u{19da}' | '\u{2070}'
            | '\u{2074}'..='\u{2079}' | '\u{2080}'..='\u{2089}' | '\u{2460}'..='\u{2468}'
            | '\u{2474}'..='\u{247c}' | '\u{2488}'..='\u{2490}' | '\u{24ea}' | '\u{24f5}'..='\u{24fd}'
            | '\u{24ff}' | '\u{2776}'..='\u{277e}' | '\u{2780}'..='\u{2788}' | '\u{278a}'..='\u{2792}'
            | '\u{10a40}'..='\u{10a43}' | '\u{10e60}'..='\u{10e68}' | '\u{11052}'..='\u{1105a}'
            | '\u{1f100}'..='\u{1f10a}')
}

pub(super) fn is_numeric(c: char) -> bool {
    c.is_number() || is_digit(c) || IDEOGRAPHIC_NUMBERS.contains(c)
}

pub(super) fn is_alnum(c: char) -> bool {
    is_alpha(c) || is_numeric(c)
}

pub(super) fn is_title(c: char) -> bool {
    c.is_letter_titlecase()
}

pub(super) fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_title(c)
}

/// Whether a name may begin with a character.
pub(super) fn begins_name(c: char) -> bool {
    c == '_' || is_alpha(c) || c.is_number_letter()
}

/// Whether a name may go on with a character.
pub(super) fn continues_name(c: char) -> bool {
    begins_name(c)
        || is_decimal(c)
        || c.is_mark_nonspacing()
        || c.is_mark_spacing_combining()
        || c.is_punctuation_connector()
        || c == '·'
}

/// A character as the first of a word.
pub(super) fn title_case(c: char) -> String {
    match c {
        'Ǆ'..='ǆ' => "ǅ".into(),
        'Ǉ'..='ǉ' => "ǈ".into(),
        'Ǌ'..='ǌ' => "ǋ".into(),
        'Ǳ'..='ǳ' => "ǲ".into(),
        // Georgian letters stay small at the beginning of a word.
        '\u{10d0}'..='\u{10ff}' => c.into(),
        _ => {
            let mut upper = c.to_uppercase();
            let mut out: String = upper.next().into_iter().collect();
            // A letter that becomes two, such as ß, keeps the second one small.
            out.extend(upper.flat_map(char::to_lowercase));
            out
        }
    }
}

/// A character for comparisons that ignore case.
pub(super) fn fold(c: char) -> String {
    match c {
        // Cherokee folds to its large letters.
        'ı' | '\u{13a0}'..='\u{13f5}' => c.into(),
        'İ' => c.to_lowercase().collect(),
        '\u{13f8}'..='\u{13fd}' | '\u{ab70}'..='\u{abbf}' => c.to_uppercase().collect(),
        _ => c.to_uppercase().flat_map(char::to_lowercase).collect(),
    }
}
