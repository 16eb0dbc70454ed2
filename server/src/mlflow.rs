//! Which ONNX file does an MLflow model's folder hold?
//!
//! The file `MLmodel` there lists the flavours in which the model was saved; `onnx` names its file under `data`.
//! <https://mlflow.org/docs/latest/ml/model/>

use saphyr::{LoadableYamlNode, Yaml};

use quern_inference::weights::stays_inside;

/// What describes a model, in its folder.
pub(crate) const DESCRIPTION: &str = "MLmodel";
/// The way out of whatever is wrong with a folder.
pub(super) const HELP: &str =
    "name an ONNX file, or the folder of a model that was saved with `mlflow.onnx.save_model`";
/// The same, of what its registry has.
pub(super) const LOG_HELP: &str =
    "log the model in ONNX: `mlflow.onnx.log_model(onnx_model, name=..., registered_model_name=...)`";

/// The path of the ONNX file, below the folder that has this description.
pub(super) fn onnx_file(description: &[u8]) -> Result<String, String> {
    let text = str::from_utf8(description).map_err(|error| format!("`{DESCRIPTION}`: {error}"))?;
    let documents = Yaml::load_from_str(text).map_err(|error| format!("`{DESCRIPTION}`: {error}"))?;
    let flavors = documents.first().and_then(|document| document.as_mapping_get("flavors"));
    let Some(onnx) = flavors.and_then(|flavors| flavors.as_mapping_get("onnx")) else {
        return Err(format!("`{DESCRIPTION}` lists no flavour `onnx`"));
    };
    let data = onnx.as_mapping_get("data").and_then(Yaml::as_str).unwrap_or("model.onnx");
    // What a folder says must not lead out of it.
    if !stays_inside(data) {
        return Err(format!("`{DESCRIPTION}` names `{data}`, which lies outside of the folder"));
    }
    Ok(data.to_owned())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_onnx_flavour_names_the_file() {
        let cases = [
            "flavors:\n  onnx:\n    data: data/model.onnx\n    onnx_version: 1.19.0\n  python_function: {}\n",
            "flavors: {onnx: {onnx_version: 1.19.0}}\n",
            "flavors: {sklearn: {}}\n",
            "flavors: {onnx: {data: ../secret.onnx}}\n",
            "flavors: {onnx: {data: /etc/passwd}}\n",
            "- no mapping\n",
        ];
        let shown: Vec<String> =
            cases.iter().map(|case| onnx_file(case.as_bytes()).unwrap_or_else(|cause| cause)).collect();
        expect![[r#"
            data/model.onnx
            model.onnx
            `MLmodel` lists no flavour `onnx`
            `MLmodel` names `../secret.onnx`, which lies outside of the folder
            `MLmodel` names `/etc/passwd`, which lies outside of the folder
            `MLmodel` lists no flavour `onnx`"#]]
        .assert_eq(&shown.join("\n"));
    }
}
