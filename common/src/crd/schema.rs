//! Pieces of schema that a derive cannot say, and the last touch that makes a generated CRD fit for an API server.
//!
//! Lists and maps have an upper bound everywhere: the API server refuses CEL rules whose cost it cannot bound, and a
//! spec of absurd size is refused at the door.

use k8s_openapi::api::core::v1::{Affinity, Container, Toleration, TopologySpreadConstraint};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

fn quantity_value() -> Value {
    json!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": true,
        "pattern": QUANTITY,
        "maxLength": 32,
    })
}

/// A size on disk: 1Gi to 64Ti.
pub(super) fn storage_size(_: &mut SchemaGenerator) -> Schema {
    let mut schema = quantity_value();
    if let Some(map) = schema.as_object_mut() {
        map.insert("default".to_owned(), json!("10Gi"));
        map.insert(
            "x-kubernetes-validations".to_owned(),
            json!([
                {"rule": "quantity(string(self)).compareTo(quantity('1Gi')) >= 0", "message": "a MySQL volume needs at least 1Gi"},
                {"rule": "quantity(string(self)).compareTo(quantity('64Ti')) <= 0", "message": "at most 64Ti"},
            ]),
        );
    }
    schema.try_into().unwrap_or_default()
}

/// Free space or a size in a status.
pub(super) fn quantity(_: &mut SchemaGenerator) -> Schema {
    quantity_value().try_into().unwrap_or_default()
}

/// Requests and limits of the MySQL container.
pub(super) fn resources(_: &mut SchemaGenerator) -> Schema {
    let quantities = |what: &str| {
        json!({
            "type": "object",
            "description": what,
            "maxProperties": 16,
            "additionalProperties": quantity_value(),
        })
    };
    json_schema!({
        "type": "object",
        "properties": {
            "requests": quantities("What the scheduler sets aside."),
            "limits": quantities("What the container may not exceed. With a memory limit, memory-sized mysqld settings get defaults that fit it."),
        },
        "x-kubernetes-validations": [
            {
                "rule": "!has(self.limits) || !('memory' in self.limits) || quantity(string(self.limits['memory'])).compareTo(quantity('256Mi')) >= 0",
                "message": "mysqld needs a memory limit of at least 256Mi",
            },
            {
                "rule": "!has(self.limits) || !has(self.requests) || self.requests.all(k, !(k in self.limits) || quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
                "message": "a request may not exceed its limit",
            },
        ],
    })
}

/// mysqld settings.
pub(super) fn config(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 200,
        "additionalProperties": {"type": "string", "maxLength": 1024},
        "x-kubernetes-validations": [
            {
                "rule": "self.all(k, size(k) <= 64 && k.matches('^[a-z][a-z0-9_]*$'))",
                "message": "a key is the name of a mysqld system variable: lower case, digits and underscores, no dashes, at most 64 characters",
            },
            {
                "rule": "self.all(k, !self[k].contains('\\n') && !self[k].contains('\\r') && !self[k].contains('\\u0000'))",
                "message": "a value is one line",
            },
        ],
    })
}

/// Labels for the pods.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
        "x-kubernetes-validations": [{
            "rule": "self.all(k, !k.startsWith('pelorus.dev/') && !k.startsWith('app.kubernetes.io/'))",
            "message": "labels of pelorus.dev/ and app.kubernetes.io/ belong to Pelorus",
        }],
    })
}

/// Annotations for pods and Services.
pub(super) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 4096},
        "x-kubernetes-validations": [{
            "rule": "self.all(k, !k.startsWith('pelorus.dev/'))",
            "message": "annotations of pelorus.dev/ belong to Pelorus",
        }],
    })
}

/// Labels that a node must carry.
pub(super) fn node_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
    })
}

/// A label selector with bounds.
pub(super) fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object",
                "description": "Labels that the objects carry.",
                "maxProperties": 16,
                "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
            },
            "matchExpressions": {
                "type": "array",
                "description": "Conditions on labels, all of which hold.",
                "maxItems": 16,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "maxLength": 317},
                        "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                        "values": {"type": "array", "maxItems": 32, "items": {"type": "string", "maxLength": 63}},
                    },
                },
            },
        },
        "x-kubernetes-validations": [{
            "rule": "(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
            "message": "an empty selector would take the backups of every cluster",
        }],
    })
}

/// kubectl reads YAML 1.1, in which an unquoted key `on` is the boolean `true`: `{on: "shop.*"}` arrives as
/// `{"true": "shop.*"}`. Both are taken.
pub(super) fn alias_of_on(schema: &mut Schema) {
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| name != "on");
    }
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    if let Some(mut alias) = properties.get("on").cloned() {
        if let Some(field) = alias.as_object_mut() {
            field.insert(
                "description".to_owned(),
                json!("The same as `on`: what YAML 1.1 makes of an unquoted key `on`."),
            );
        }
        properties.insert("true".to_owned(), alias);
    }
}

/// As in a pod, without the descriptions.
pub(super) fn affinity(generator: &mut SchemaGenerator) -> Schema {
    compact::<Affinity>(generator)
}

/// As in a pod, without the descriptions.
pub(super) fn tolerations(generator: &mut SchemaGenerator) -> Schema {
    list_of::<Toleration>(generator, 32)
}

/// As in a pod, without the descriptions.
pub(super) fn spread(generator: &mut SchemaGenerator) -> Schema {
    list_of::<TopologySpreadConstraint>(generator, 16)
}

/// As in a pod, without the descriptions.
pub(super) fn sidecars(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = list_of::<Container>(generator, 8);
    schema.insert(
        "x-kubernetes-validations".to_owned(),
        json!([{
            "rule": "self.all(c, !(c.name in ['mysql', 'install']))",
            "message": "the container names mysql and install belong to Pelorus",
        }]),
    );
    if let Some(name) = schema.pointer_mut("/items/properties/name").and_then(Value::as_object_mut) {
        name.insert("maxLength".to_owned(), json!(63));
    }
    schema
}

fn list_of<T: JsonSchema>(generator: &mut SchemaGenerator, most: u32) -> Schema {
    let items = compact::<T>(generator);
    json_schema!({"type": "array", "maxItems": most, "items": items})
}

/// The schema of a Kubernetes type without its descriptions: `kubectl explain pod.spec` has them, a CRD of a megabyte
/// would not be applied.
fn compact<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut value = T::json_schema(generator).to_value();
    walk(&mut value, &mut |map| {
        if map.get("description").is_some_and(Value::is_string) {
            map.remove("description");
        }
    });
    value.try_into().unwrap_or_default()
}

/// Makes a derived CRD fit: no `nullable` (an absent field is absent, for CEL's `has` too), no formats that the API
/// server does not know, descriptions as paragraphs rather than lines.
pub(super) fn polish(crd: CustomResourceDefinition) -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut value = serde_json::to_value(crd)?;
    walk(&mut value, &mut |map| {
        if map.get("nullable").is_some_and(Value::is_boolean) {
            map.remove("nullable");
        }
        let unknown = |format: &str| !matches!(format, "int32" | "int64" | "float" | "double" | "date-time" | "byte");
        if map.get("format").and_then(Value::as_str).is_some_and(unknown) {
            map.remove("format");
        }
        if let Some(Value::String(text)) = map.get_mut("description") {
            *text = paragraphs(text);
        }
    });
    serde_json::from_value(value)
}

fn paragraphs(text: &str) -> String {
    text.split("\n\n")
        .map(|paragraph| paragraph.split('\n').map(str::trim).collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn walk(value: &mut Value, visit: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            visit(map);
            map.values_mut().for_each(|child| walk(child, visit));
        }
        Value::Array(items) => items.iter_mut().for_each(|child| walk(child, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
