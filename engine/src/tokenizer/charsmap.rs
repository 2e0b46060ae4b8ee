//! SentencePiece's `precompiled_charsmap`: what characters are written as before a text is cut. A compact trie
//! (a double array, XOR-compressed) whose leaves point at replacements that end in zero bytes.

/// A table of replacements.
pub struct Charsmap {
    nodes: Vec<u32>,
    replacements: Vec<u8>,
}

impl Charsmap {
    /// Reads a table: the size of the trie in bytes (little-endian), the trie, the replacements. The error says
    /// why it cannot be used.
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        let (size, rest) =
            bytes.split_first_chunk::<4>().ok_or("it is shorter than its own header")?;
        let size = u32::from_le_bytes(*size) as usize;
        if size >= rest.len() {
            return Err(format!("its trie is to have {size} bytes, {} are there", rest.len()));
        }
        let (trie, replacements) = rest.split_at(size);
        let nodes = trie
            .chunks_exact(4)
            .map(|node| u32::from_le_bytes([node[0], node[1], node[2], node[3]]));
        Ok(Self { nodes: nodes.collect(), replacements: replacements.to_vec() })
    }

    /// How many bytes at the start of a text are replaced, and by what; the longest that the table has. None:
    /// the text stays as it is. The error says why the table cannot be used.
    pub fn replacement(&self, text: &[u8]) -> Result<Option<(usize, &[u8])>, String> {
        let node = |index: u32| {
            let node = self.nodes.get(index as usize).copied();
            node.ok_or_else(|| "its trie points beyond its end".to_string())
        };
        let offset = |node: u32| (node >> 10) << ((node & (1 << 9)) >> 6);
        if self.nodes.is_empty() {
            return Ok(None);
        }
        let mut index = offset(node(0)?);
        let mut found = None;
        for (at, &byte) in text.iter().enumerate().take_while(|(_, byte)| **byte != 0) {
            index ^= u32::from(byte);
            let child = node(index)?;
            if child & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            index ^= offset(child);
            if child & (1 << 8) != 0 {
                found = Some((at + 1, node(index)? & !(1 << 31)));
            }
        }
        let Some((length, start)) = found else { return Ok(None) };
        let rest = self.replacements.get(start as usize..);
        let rest = rest.ok_or("a replacement begins beyond its end")?;
        let end = rest.iter().position(|&byte| byte == 0);
        Ok(Some((length, &rest[..end.ok_or("its last replacement has no end")?])))
    }
}
