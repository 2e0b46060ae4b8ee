//! Bytes as GPT-2 writes them: a character for each, none of them white space or a control character.

use std::sync::LazyLock;

/// GPT-2's characters for the bytes in order: printable Latin-1 stands for itself, the rest for 256 and up.
pub fn byte_characters() -> impl Iterator<Item = char> {
    let mut next = 256;
    (0..=255u8).map(move |byte| {
        if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap_or_default()
        }
    })
}

/// The bytes that characters stand for; none where one of them stands for no byte.
pub fn decode_characters(text: &[u8]) -> Option<Vec<u8>> {
    static BYTES: LazyLock<Vec<Option<u8>>> = LazyLock::new(|| {
        let mut bytes = vec![None; 324];
        for (byte, character) in (0..=255u8).zip(byte_characters()) {
            bytes[character as usize] = Some(byte);
        }
        bytes
    });
    let characters = std::str::from_utf8(text).ok()?.chars();
    characters.map(|c| BYTES.get(c as usize).copied().flatten()).collect()
}
