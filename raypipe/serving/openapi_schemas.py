"""JSON Schemas (2020-12, as OpenAPI 3.1 has them) of what the endpoint takes and gives: from a version's request
contract and its label's task. Pure."""

from __future__ import annotations

from typing import Any

from raypipe.features.serving_spec import Field
from raypipe.registry.bundle import Bundle
from raypipe.serving.endpoint import Limits
from raypipe.serving.json_body import MAX_ID_LENGTH
from raypipe.serving.outputs import CLASS, FEATURE_TIME, KNOWN, NUMBER, PROBABILITIES
from raypipe.serving.outputs import metadata as output_tensors
from raypipe.serving.rows import INTEGERS
from raypipe.serving.v2_tensors import BYTES, NUMPY, datatype

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_ID: Schema = {"type": ["string", "null"], "maxLength": MAX_ID_LENGTH}
_RULES = {"min": "minimum", "max": "maximum", "min_length": "minLength", "max_length": "maxLength", "regex": "pattern"}


def schemas(bundle: Bundle, limits: Limits) -> dict[str, Schema]:
    """All of `components.schemas`."""
    fields = bundle.serving.fields
    return {
        "Row": _object({f.name: of_field(f) for f in fields}) | {"description": "The raw fields of one request."},
        "PredictRequest": _predict_request(limits),
        "Prediction": _prediction(bundle),
        "Explanation": _explanation(),
        "PredictResponse": _object(
            {"model": _STRING, "model_version": _STRING, "id": _STRING, "predictions": _list("Prediction")},
            optional={"id"},
        ),
        "InputTensor": _input_tensor(fields),
        "OutputTensor": _output_tensor(bundle),
        "InferRequest": _infer_request(fields),
        "InferResponse": _object(
            {"model_name": _STRING, "model_version": _STRING, "id": _STRING, "outputs": _list("OutputTensor")},
            optional={"id"},
        ),
        "TensorMetadata": _object(
            {"name": _STRING, "datatype": _STRING, "shape": _integers(), "parameters": {"type": "object"}},
            optional={"parameters"},
        ),
        "ModelMetadata": _model_metadata(),
        "Error": _error(),
    }


def reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def of_field(field: Field) -> Schema:
    """A request field in JSON: its type, and the bounds that its source's contract states."""
    kind = field.type
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        found: Schema = {"type": "integer", "minimum": low, "maximum": high}
    elif kind.startswith("Float"):
        found = dict(_NUMBER)
    elif kind == "Boolean":
        found = {"type": "boolean"}
    elif kind == "Date":
        found = {"type": "string", "format": "date"}
    elif kind.startswith("Datetime"):
        found = {"type": "string", "format": "date-time"}
    else:
        found = dict(_STRING)
    found |= {_RULES[rule]: bound for rule, bound in field.rules.items() if rule in _RULES}
    if field.nullable:
        found["type"] = [found["type"], "null"]
    return found | ({"description": field.description} if field.description else {})


def _object(properties: dict[str, Schema], optional: set[str] | frozenset[str] = frozenset()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _list(name: str) -> Schema:
    return {"type": "array", "items": reference(name)}


def _integers() -> Schema:
    return {"type": "array", "items": {"type": "integer"}}


def _predict_request(limits: Limits) -> Schema:
    explain = f"Say what each feature added; of at most {limits.max_explained_rows} rows."
    return _object(
        {
            "rows": _list("Row") | {"minItems": 1, "maxItems": limits.max_rows},
            "id": _ID | {"description": "A name of your own for this request; the answer has it too."},
            "explain": {"type": "boolean", "default": False, "description": explain},
        },
        optional={"id", "explain"},
    )


def _prediction(bundle: Bundle) -> Schema:
    classes = bundle.transforms.classes
    if classes is None:
        answer: dict[str, Schema] = {NUMBER[bundle.serving.task]: _NUMBER}
    else:
        by_class = _object({str(c): _NUMBER for c in classes})
        answer = {CLASS: {"enum": list(classes)}, PROBABILITIES: by_class}
    explanation = reference("Explanation")
    if classes is not None:
        explanation = _object({str(c): explanation for c in classes})
    time = {"type": "string", "format": "date-time", "description": "As of when the features were known."}
    known = {"type": "boolean", "description": "Whether every entity that features were looked up for was known."}
    optional = {"explanation"} | (set() if bundle.serving.prediction_time else {FEATURE_TIME})
    return _object(answer | {FEATURE_TIME: time, KNOWN: known, "explanation": explanation}, optional)


def _explanation() -> Schema:
    contributions = {"type": "object", "additionalProperties": _NUMBER}
    schema = _object({"margin": _NUMBER, "bias": _NUMBER, "contributions": contributions})
    return schema | {"description": "`bias` and the contributions of all features sum to the model's margin."}


def _input_tensor(fields: tuple[Field, ...]) -> Schema:
    size = {"type": "integer", "minimum": 0, "description": "Bytes after the document, in place of `data`."}
    tensor = {
        "name": {"enum": [f.name for f in fields]},
        "datatype": {"enum": list(dict.fromkeys(datatype(f) for f in fields))},
        "shape": _integers() | {"minItems": 1, "maxItems": 2},
        "parameters": {"type": ["object", "null"], "properties": {"binary_data_size": size}},
        "data": {"type": "array"},
    }
    return _object(tensor, optional={"parameters", "data"}) | {"additionalProperties": True}


def _output_tensor(bundle: Bundle) -> Schema:
    return _object(
        {
            "name": {"enum": [tensor["name"] for tensor in output_tensors(bundle)]},
            "datatype": {"enum": [*NUMPY, BYTES]},
            "shape": _integers(),
            "parameters": {"type": "object"},
            "data": {"type": "array"},
        },
        optional={"parameters", "data"},
    )


def _infer_request(fields: tuple[Field, ...]) -> Schema:
    output = _object({"name": _STRING, "parameters": {"type": ["object", "null"]}}, optional={"parameters"})
    return _object(
        {
            "id": _ID,
            "parameters": {"type": ["object", "null"], "properties": {"binary_data_output": {"type": "boolean"}}},
            "inputs": _list("InputTensor") | {"minItems": len(fields), "maxItems": len(fields)},
            "outputs": {"type": ["array", "null"], "items": output | {"additionalProperties": True}},
        },
        optional={"id", "parameters", "outputs"},
    ) | {"additionalProperties": True}


def _model_metadata() -> Schema:
    return _object(
        {
            "name": _STRING,
            "versions": {"type": "array", "items": _STRING},
            "platform": _STRING,
            "inputs": _list("TensorMetadata"),
            "outputs": _list("TensorMetadata"),
        }
    )


def _error() -> Schema:
    fault = _object(
        {"row": {"type": ["integer", "null"]}, "field": {"type": ["string", "null"]}, "reason": _STRING},
        optional={"row", "field"},
    )
    said: dict[str, Schema] = dict.fromkeys(("error", "what", "kind", "where", "got", "expected", "hint"), _STRING)
    return _object(
        said | {"fields": {"type": "array", "items": fault}}, {"kind", "where", "got", "expected", "hint", "fields"}
    )
