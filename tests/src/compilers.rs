//! What vendors' compilers make of kernels, without their cards.
//!
//! Mesa's driver for AMD compiles for any chip without one (`RADV_FORCE_FAMILY`, its null device), that for Intel with a stub
//! in the kernel's place (`checks/intel-stub`); both tell registers, spills and the assembly. A driver reads its settings
//! from the environment when it is loaded, so that each chip is a process of its own: the program `isa` (`src/bin/isa.rs`),
//! which calls itself.

pub mod browsers;
pub mod intel;
pub mod isa;
pub mod plans;
pub mod slots;
pub mod vulkan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use shaders::Kernel;

use self::isa::Program;

/// Chips that the Mesa of Debian 12 knows, the oldest and the newest generation in wide use: RDNA 2 and RDNA 3.
pub const CHIPS: [&str; 2] = ["navi21", "gfx1100"];
/// Chips for a newer Mesa: RDNA 3 again, by its compiler of today, and RDNA 4.
pub const NEWER_CHIPS: [&str; 2] = ["navi31", "gfx1201"];
/// Intel's chips by the stub's names: the graphics of the 11th to 13th generation of processors, Arc of the first generation
/// (A770), Arc of the second (B580), whose instructions have twice the lanes.
pub const INTELS_CHIPS: [&str; 3] = ["tgl", "dg2", "bmg"];
/// Others that the stub knows.
const INTELS_OTHER_CHIPS: [&str; 6] = ["lnl", "mtl", "adl", "rpl", "icl", "dg1"];

/// The machine's own text among the texts of AMD's compiler.
pub const ASSEMBLY: &str = "Assembly";

/// What a driver says of a kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compiled {
    /// The driver and its version in its own words: `Mesa 22.3.6`.
    pub driver: String,
    /// Lanes of a subgroup.
    pub subgroup: u32,
    /// The driver's statistics by its names.
    pub statistics: BTreeMap<String, f64>,
    /// The compiler's texts by its names.
    pub texts: BTreeMap<String, String>,
}

impl Compiled {
    /// A statistic of the driver's; 0 where it has none of this name.
    pub fn statistic(&self, name: &str) -> u32 {
        self.statistics.get(name).map_or(0, |&value| value as u32)
    }

    /// The instructions; Intel's counted in lanes.
    pub fn program(&self) -> Program {
        match self.texts.get(intel::ASSEMBLY) {
            Some(assembly) => intel::parse(assembly),
            None => Program::parse(self.texts.get(ASSEMBLY).map_or("", String::as_str)),
        }
    }

    /// What [`Self::program`] counts of an instruction that a whole subgroup issues.
    pub fn lanes_counted(&self) -> u32 {
        if self.texts.contains_key(intel::ASSEMBLY) { self.subgroup } else { 1 }
    }

    /// What did not fit into registers: spilled registers, bytes of scratch memory, by AMD's names and Intel's.
    pub fn spills(&self) -> Vec<String> {
        let names = ["Spilled VGPRs", "Spilled SGPRs", "Scratch size"];
        let intels = ["Spill Count", "Scratch Memory Size"];
        names
            .into_iter()
            .chain(intels)
            .filter(|name| self.statistic(name) > 0)
            .map(|name| format!("{name} {}", self.statistic(name)))
            .collect()
    }
}

/// A driver of AMD's chips, or of Intel's.
#[derive(Debug, Clone)]
pub struct Driver {
    /// The file that tells the Vulkan loader of it.
    manifest: PathBuf,
    /// Where its libraries lie, if not where the system keeps them.
    libraries: Option<PathBuf>,
    /// For Intel's chips, what answers in the kernel's place.
    stub: Option<PathBuf>,
}

impl Driver {
    /// The system's.
    pub fn installed() -> Option<Self> {
        let files = std::fs::read_dir("/usr/share/vulkan/icd.d").ok()?;
        let manifest = files.flatten().map(|file| file.path()).find(|path| {
            let is_json = path.extension().is_some_and(|extension| extension == "json");
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            is_json && name.starts_with("radeon_icd")
        })?;
        Some(Self { manifest, libraries: None, stub: None })
    }

    /// A newer one, unpacked into the folder that `ENGINE_TEST_MESA` names (`tests/run --full` does that): its
    /// `radeon_icd.json`, and the libraries in `lib`.
    pub fn newer() -> Option<Self> {
        Self::unpacked("radeon_icd.json")
    }

    /// Intel's in the same folder, with the stub that `checks/intel-stub` made.
    pub fn intels() -> Option<Self> {
        let driver = Self::unpacked("intel_icd.json")?;
        let stub = driver.libraries.as_ref()?.join("libintel_noop_drm_shim.so");
        stub.is_file().then_some(Self { stub: Some(stub), ..driver })
    }

    fn unpacked(manifest: &str) -> Option<Self> {
        let folder = PathBuf::from(std::env::var_os("ENGINE_TEST_MESA")?);
        let manifest = folder.join(manifest);
        let libraries = Some(folder.join("lib"));
        manifest.is_file().then_some(Self { manifest, libraries, stub: None })
    }

    /// The newest there is for a chip.
    pub fn of(chip: &str) -> Option<Self> {
        if INTELS_CHIPS.contains(&chip) || INTELS_OTHER_CHIPS.contains(&chip) {
            return Self::intels();
        }
        // The newer one knows gfx1100 by its code name alone, navi31.
        let older = Self::installed().filter(|_| CHIPS.contains(&chip));
        older.or_else(Self::newer).or_else(Self::installed)
    }

    /// Its name of the assembly.
    pub fn assembly(&self) -> &'static str {
        if self.stub.is_some() { intel::ASSEMBLY } else { ASSEMBLY }
    }

    /// Compiles kernels for a chip, by `program`, which is `isa`; of the compiler's texts the assembly and `text` come back.
    pub fn compile(
        &self,
        program: &Path,
        chip: &str,
        text: &str,
        kernels: &[Kernel],
    ) -> Result<Vec<Compiled>, String> {
        let folder = std::env::temp_dir().join(format!("engine-isa-{}-{chip}", std::process::id()));
        let result = self.compile_in(&folder, program, chip, text, kernels);
        let _ = std::fs::remove_dir_all(folder);
        result
    }

    fn compile_in(
        &self,
        folder: &Path,
        program: &Path,
        chip: &str,
        text: &str,
        kernels: &[Kernel],
    ) -> Result<Vec<Compiled>, String> {
        std::fs::create_dir_all(folder).map_err(|why| why.to_string())?;
        let mut files = Vec::new();
        for (index, kernel) in kernels.iter().enumerate() {
            let words = kernel.spirv_as_wgpu().map_err(|why| why.to_string())?;
            let file = folder.join(format!("{index}.spv"));
            std::fs::write(&file, bytemuck::cast_slice(&words)).map_err(|why| why.to_string())?;
            files.push(file);
        }
        let mut command = Command::new(program);
        command.args(["--files", self.assembly(), text]).args(&files);
        command.env("VK_DRIVER_FILES", &self.manifest);
        match &self.stub {
            Some(stub) => command.env("LD_PRELOAD", stub).env("INTEL_STUB_GPU_PLATFORM", chip),
            None => command.env("RADV_FORCE_FAMILY", chip),
        };
        // What lies in the cache has no assembly; and a layer of another driver may not load.
        command.env("MESA_SHADER_CACHE_DISABLE", "1").env("VK_LOADER_LAYERS_DISABLE", "~all~");
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let output = command.output().map_err(|why| format!("{}: {why}", program.display()))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let lines = String::from_utf8_lossy(&output.stdout);
        let compiled: Vec<Compiled> = lines
            .lines()
            .map(|line| serde_json::from_str(line).map_err(|why| why.to_string()))
            .collect::<Result<_, _>>()?;
        if compiled.len() == kernels.len() {
            Ok(compiled)
        } else {
            Err(format!("{} of {} kernels came back", compiled.len(), kernels.len()))
        }
    }
}
