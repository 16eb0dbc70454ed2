//! What does a model run on? Execution providers in the order of the settings, and which one it really is.
//!
//! ONNX Runtime passes over a provider that does not start without a word. Here the next one in the list is tried, the
//! log says why, and what is in use is shown; where none of the list starts, nothing goes live.

use std::fmt;
use std::str::FromStr;

use feature_defs::suggest;
use ort::ep::{self, ExecutionProviderDispatch};

/// What a model runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// The processor.
    Cpu,
    /// NVIDIA's GPUs, by CUDA.
    Cuda,
    /// NVIDIA's GPUs, by TensorRT.
    TensorRt,
    /// Intel's processors and accelerators.
    OpenVino,
}

impl Provider {
    const ALL: [Provider; 4] = [Provider::Cpu, Provider::Cuda, Provider::TensorRt, Provider::OpenVino];

    /// Its name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Provider::Cpu => "cpu",
            Provider::Cuda => "cuda",
            Provider::TensorRt => "tensorrt",
            Provider::OpenVino => "openvino",
        }
    }

    /// Told to fail where it does not start.
    pub(crate) fn dispatch(self) -> ExecutionProviderDispatch {
        let provider = match self {
            Provider::Cpu => ep::CPU::default().with_arena_allocator(false).build(),
            Provider::Cuda => ep::CUDA::default().build(),
            Provider::TensorRt => ep::TensorRT::default().build(),
            Provider::OpenVino => ep::OpenVINO::default().build(),
        };
        provider.error_on_failure()
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Provider::ALL.into_iter().find(|provider| provider.name() == text);
        found.ok_or_else(|| {
            format!("`{text}` is no execution provider; {}", suggest(text, Provider::ALL.map(Provider::name)))
        })
    }
}
