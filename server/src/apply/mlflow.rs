//! Which ONNX file does an MLflow model's folder hold?
//!
//! The file `MLmodel` there lists the flavours in which the model was saved; `onnx` names its file under `data`.
//! <https://mlflow.org/docs/latest/ml/model/>

use std::fs;
use std::path::{Component, Path, PathBuf};

use saphyr::{LoadableYamlNode, Yaml};

const DESCRIPTION: &str = "MLmodel";

/// The ONNX file of the model in `folder`.
pub(super) fn onnx_file(folder: &Path) -> Result<PathBuf, String> {
    let text = fs::read_to_string(folder.join(DESCRIPTION))
        .map_err(|error| format!("its `{DESCRIPTION}` cannot be read ({error}); name an ONNX file, or the folder of an MLflow model"))?;
    let documents = Yaml::load_from_str(&text).map_err(|error| format!("`{DESCRIPTION}`: {error}"))?;
    let flavors = documents.first().and_then(|document| document.as_mapping_get("flavors"));
    let Some(onnx) = flavors.and_then(|flavors| flavors.as_mapping_get("onnx")) else {
        return Err(format!("`{DESCRIPTION}` lists no flavour `onnx`; save the model with `mlflow.onnx`"));
    };
    let data = onnx.as_mapping_get("data").and_then(Yaml::as_str).unwrap_or("model.onnx");
    // What a folder says must not lead out of it.
    let stays =
        Path::new(data).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !stays {
        return Err(format!("`{DESCRIPTION}` names `{data}`, which lies outside of the folder"));
    }
    Ok(folder.join(data))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_onnx_flavour_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let found = |text: &str| {
            fs::write(folder.path().join(DESCRIPTION), text).unwrap();
            match onnx_file(folder.path()) {
                Ok(path) => path.strip_prefix(folder.path()).unwrap().display().to_string(),
                Err(cause) => cause,
            }
        };
        let cases = [
            "flavors:\n  onnx:\n    data: data/model.onnx\n    onnx_version: 1.19.0\n  python_function: {}\n",
            "flavors: {onnx: {onnx_version: 1.19.0}}\n",
            "flavors: {sklearn: {}}\n",
            "flavors: {onnx: {data: ../secret.onnx}}\n",
            "flavors: {onnx: {data: /etc/passwd}}\n",
            "- no mapping\n",
        ];
        let shown: Vec<String> = cases.iter().map(|case| found(case)).collect();
        expect![[r#"
            data/model.onnx
            model.onnx
            `MLmodel` lists no flavour `onnx`; save the model with `mlflow.onnx`
            `MLmodel` names `../secret.onnx`, which lies outside of the folder
            `MLmodel` names `/etc/passwd`, which lies outside of the folder
            `MLmodel` lists no flavour `onnx`; save the model with `mlflow.onnx`"#]]
        .assert_eq(&shown.join("\n"));
    }
}
