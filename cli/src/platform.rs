//! What differs between operating systems in what a user is told, and in how the end of a pipe looks. The system is a value,
//! so that the words of each can be tested on any.

use std::io::{self, ErrorKind};

/// An operating system, as far as words differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Linux.
    Linux,
    /// macOS and its kin.
    Apple,
    /// Windows.
    Windows,
    /// Any other.
    Other,
}

impl Platform {
    /// The one that this program was built for.
    pub const HERE: Self = if cfg!(windows) {
        Self::Windows
    } else if cfg!(target_vendor = "apple") {
        Self::Apple
    } else if cfg!(target_os = "linux") {
        Self::Linux
    } else {
        Self::Other
    };

    /// The keys that end what is typed in a terminal. Windows reads its sign at the end of a line only.
    pub fn end_of_input(self) -> &'static str {
        match self {
            Self::Windows => "Ctrl+Z and Enter",
            _ => "Ctrl+D",
        }
    }

    /// What a GPU needs that is not found.
    pub fn driver_advice(self) -> &'static str {
        match self {
            Self::Linux => {
                "A GPU needs its Vulkan driver: mesa-vulkan-drivers for AMD and Intel, NVIDIA's own for NVIDIA"
            }
            Self::Apple => "A GPU needs Metal, which this system does not offer",
            Self::Windows => {
                "A GPU needs a driver with Vulkan or DirectX 12, as NVIDIA, AMD and Intel have for Windows"
            }
            Self::Other => "A GPU needs its Vulkan driver",
        }
    }

    /// Whether an error of a write says that whoever read has gone.
    pub fn is_closed_pipe(self, error: &io::Error) -> bool {
        // ERROR_BROKEN_PIPE, ERROR_NO_DATA (the pipe is being closed), ERROR_PIPE_NOT_CONNECTED: the last is no
        // BrokenPipe to Rust.
        const GONE: [i32; 3] = [109, 232, 233];
        error.kind() == ErrorKind::BrokenPipe
            || self == Self::Windows
                && error.raw_os_error().is_some_and(|code| GONE.contains(&code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_has_its_words() {
        use Platform::{Apple, Linux, Other, Windows};
        for platform in [Linux, Apple, Windows, Other] {
            let advice = platform.driver_advice();
            assert_eq!(advice.contains("mesa"), platform == Linux, "{advice}");
            assert_eq!(advice.contains("DirectX"), platform == Windows, "{advice}");
            assert_eq!(platform.end_of_input().contains("Ctrl+Z"), platform == Windows);
        }
        assert_eq!(Platform::HERE == Linux, cfg!(target_os = "linux"));
    }

    #[test]
    fn a_pipe_ends_quietly() {
        for code in [109, 232, 233] {
            let error = io::Error::from_raw_os_error(code);
            assert!(Platform::Windows.is_closed_pipe(&error), "{code}");
            if cfg!(unix) {
                // Other numbers elsewhere.
                assert!(!Platform::HERE.is_closed_pipe(&error), "{code}");
            }
        }
        let full = io::Error::from(ErrorKind::StorageFull);
        let gone = io::Error::from(ErrorKind::BrokenPipe);
        for platform in [Platform::Linux, Platform::Windows] {
            assert!(platform.is_closed_pipe(&gone) && !platform.is_closed_pipe(&full));
        }
    }
}
