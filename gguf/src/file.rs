//! A model's file, or the files of a split model, as one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::{
    Endian, Error, FileSource, Format, Header, Metadata, Result, Source, SplitName, TensorInfo,
};

/// A model's metadata and tensors, from one file or from the parts of a split one.
#[derive(Clone)]
pub struct Gguf {
    /// The first file's metadata.
    pub metadata: Metadata,
    /// The tensors of all files in order, each naming its file.
    pub tensors: Vec<TensorInfo>,
    /// The files in order.
    pub sources: Vec<Arc<dyn Source>>,
    /// The first file's format version.
    pub version: u32,
    /// The byte order of the files.
    pub endian: Endian,
    by_name: HashMap<String, usize>,
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Gguf")
            .field("file", &self.file())
            .field("version", &self.version)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

impl Gguf {
    /// Opens the model at `path`: a `.gguf` file, or any part of a split model (the other parts are
    /// looked for beside it).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = path.to_string_lossy();
        let paths = match SplitName::parse(&text) {
            Some(split) => (1..=split.count).map(|part| split.name_of(part)).collect(),
            None => vec![text.into_owned()],
        };
        let mut sources: Vec<Arc<dyn Source>> = Vec::new();
        for part in &paths {
            // A non-UTF-8 path is never a split name and is opened as it is.
            let path = if paths.len() == 1 { path } else { Path::new(part) };
            sources.push(Arc::new(FileSource::open(path)?));
        }
        Self::from_sources(sources)
    }

    /// Reads the headers of `sources`: one file, or all parts of a split model in order.
    pub fn from_sources(sources: Vec<Arc<dyn Source>>) -> Result<Self> {
        let mut model: Option<Self> = None;
        for (index, source) in sources.iter().enumerate() {
            let Header { version, endian, metadata, tensors, .. } = Header::parse(source.as_ref())?;
            check_part(&metadata, index, sources.len())?;
            let model = model.get_or_insert_with(|| Self {
                metadata,
                tensors: Vec::new(),
                sources: sources.clone(),
                version,
                endian,
                by_name: HashMap::new(),
            });
            for mut tensor in tensors {
                tensor.file = index;
                if model.by_name.insert(tensor.name.clone(), model.tensors.len()).is_some() {
                    let why = format!("tensor {} is also in an earlier part", tensor.name);
                    return Err(Error::Split { file: source.name().into(), why });
                }
                model.tensors.push(tensor);
            }
        }
        let model = model.ok_or_else(|| Error::Split {
            file: "no file".into(),
            why: "a model needs at least one file".into(),
        })?;
        if let Some(expected) = model.metadata.u32("split.tensors.count")?
            && sources.len() > 1
            && expected as usize != model.tensors.len()
        {
            let why =
                format!("the parts hold {} tensors, expected {expected}", model.tensors.len());
            return Err(Error::Split { file: model.file().into(), why });
        }
        Ok(model)
    }

    /// The first file's name, for messages.
    pub fn file(&self) -> &str {
        self.metadata.file()
    }

    /// The total length of all files in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.len()).sum()
    }

    /// Gives a tensor other data of the same type, all of a source, and another shape.
    pub fn replace(&mut self, name: &str, shape: Vec<u64>, source: Arc<dyn Source>) -> Result<()> {
        let Some(&index) = self.by_name.get(name) else {
            return Err(Error::MissingTensor { file: self.file().into(), name: name.into() });
        };
        let (file, bytes) = (self.sources.len(), Some(source.len()));
        let old = &self.tensors[index];
        self.tensors[index] = TensorInfo { shape, file, start: 0, bytes, ..old.clone() };
        self.sources.push(source);
        Ok(())
    }

    /// The tensor of a name, if it is there.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// The tensor of a name, or the error that names it.
    pub fn require(&self, name: &str) -> Result<&TensorInfo> {
        self.tensor(name)
            .ok_or_else(|| Error::MissingTensor { file: self.file().into(), name: name.into() })
    }

    /// The decodable format of a tensor's blocks, or the error that names tensor and type.
    pub fn format(&self, tensor: &TensorInfo) -> Result<Format> {
        let unsupported = |why| Error::UnsupportedType {
            file: self.source(tensor).name().into(),
            name: tensor.name.clone(),
            type_name: tensor.tensor_type.name(),
            why,
        };
        if self.endian == Endian::Big {
            return Err(Error::BigEndianData { file: self.file().into() });
        }
        match tensor.tensor_type.info() {
            None => Err(unsupported("this engine does not know")),
            Some(info) if info.block_size == 0 => {
                Err(unsupported("was removed from ggml and has no blocks any more"))
            }
            Some(info) => {
                info.format.ok_or_else(|| unsupported("this engine cannot compute with yet"))
            }
        }
    }

    /// The file that holds a tensor.
    pub fn source(&self, tensor: &TensorInfo) -> &Arc<dyn Source> {
        &self.sources[tensor.file]
    }

    /// Fills `out` with a tensor's data from byte `offset` of it on.
    pub fn read(&self, tensor: &TensorInfo, offset: u64, out: &mut [u8]) -> Result<()> {
        let source = self.source(tensor);
        let io = |error| Error::Io { file: source.name().into(), error };
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > tensor.bytes.unwrap_or(0)) {
            return Err(io(std::io::ErrorKind::UnexpectedEof.into()));
        }
        if out.is_empty() {
            return Ok(());
        }
        source.read_at(tensor.start + offset, out).map_err(io)
    }
}

/// Checks what a part says of itself against what it was opened as.
fn check_part(metadata: &Metadata, index: usize, count: usize) -> Result<()> {
    let wrong = |why: String| Error::Split { file: metadata.file().into(), why };
    let says = metadata.u32("split.count")?.unwrap_or(0);
    if says.max(1) as usize != count {
        let joined = if count == 1 {
            " (parts that were joined into one file with cat have to be merged by llama-gguf-split --merge instead)"
        } else {
            ""
        };
        let why = format!("it is a part of {says} parts, {count} were found by its name{joined}");
        return Err(wrong(why));
    }
    if let Some(number) = metadata.u32("split.no")?
        && number as usize != index
    {
        return Err(wrong(format!(
            "it is part {} but stands as part {}",
            u64::from(number) + 1,
            index + 1
        )));
    }
    Ok(())
}
