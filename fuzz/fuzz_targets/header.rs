//! Any bytes as a file: its header is read or refused, in memory that its length bounds, and all that was read can be gone
//! through and written again.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use gguf::{Array, BytesSource, Gguf, Header, Metadata, Source, Value, Writer};
use libfuzzer_sys::fuzz_target;

/// The system's memory, counted.
struct Counted;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn taken(bytes: usize) {
    PEAK.fetch_max(NOW.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: the system's allocator, asked for the same.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as this function's caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as this function's caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static MEMORY: Counted = Counted;

/// What a byte of a file may take: the description of a tensor has 24 and is kept, with its name, in two tables and a set.
const BYTES_PER_BYTE: usize = 64;
/// Whatever the length: messages, names of files.
const BYTES_ALWAYS: usize = 16 << 10;

fn read_array(array: &Array) {
    for index in 0..array.len() {
        if let Some(Value::Array(inner)) = array.get(index) {
            read_array(&inner);
        }
    }
    assert!(array.get(array.len()).is_none());
}

fn read_all(metadata: &Metadata) {
    for (key, value) in metadata.iter() {
        _ = (value.as_u64(), value.as_f64(), value.as_str(), value.as_bool(), value.to_string());
        _ = (metadata.u32(key), metadata.f32(key), metadata.bool(key), metadata.text(key));
        _ = (metadata.str(key), metadata.strings(key), metadata.f32s(key), metadata.u32s(key));
        value.as_array().inspect(|array| read_array(array));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let source: Arc<dyn Source> = Arc::new(BytesSource::new("fuzzed.gguf", bytes.to_vec()));
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let read = Gguf::from_sources(vec![source.clone()]);
    let taken = PEAK.load(Relaxed) - before;
    assert!(taken <= BYTES_ALWAYS + BYTES_PER_BYTE * bytes.len(), "{taken} bytes of memory");
    let model = match read {
        Ok(model) => model,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    read_all(&model.metadata);
    for tensor in &model.tensors {
        _ = model.format(tensor);
        assert!(model.tensor(&tensor.name).is_some());
        assert_eq!(tensor.elements(), tensor.shape.iter().product::<u64>());
        // A tensor of a known type lies in the file.
        if let Some(length) = tensor.bytes {
            let mut data = vec![0; length as usize];
            model.read(tensor, 0, &mut data).unwrap();
            assert!(model.read(tensor, 1, &mut data).is_err() || data.is_empty());
        }
    }
    // What is written of it is read as the same, but for the padding that a file may ask for.
    let mut writer = Writer::new().version(model.version, model.endian);
    for (key, value) in model.metadata.iter().filter(|(key, _)| *key != "general.alignment") {
        writer.set(key, value.clone());
    }
    let written = writer.to_bytes();
    let again = Header::parse(&BytesSource::new("written.gguf", written.clone())).unwrap();
    let mut writer = Writer::new().version(again.version, again.endian);
    for (key, value) in again.metadata.iter() {
        writer.set(key, value.clone());
    }
    assert_eq!(writer.to_bytes(), written);
});
