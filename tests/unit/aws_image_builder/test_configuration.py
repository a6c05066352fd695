"""The Terraform configuration against the documentation of the provider.

The provider's schemas cannot be downloaded here, so `validate` is not run: the names of arguments
are compared with those that its documentation lists.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from step_scripts import FOLDER

META = {"for_each", "count", "lifecycle", "provider", "depends_on", "dynamic"}
"""Of each resource: Terraform's own."""

DOCUMENTED: dict[str, dict[str, set[str]]] = {
    "aws_imagebuilder_component": {
        "": {"name", "platform", "version", "change_description", "data", "description"}
        | {"kms_key_id", "skip_destroy", "supported_os_versions", "tags", "uri"},
    },
    "aws_imagebuilder_image_recipe": {
        "": {"component", "name", "parent_image", "version", "block_device_mapping", "description"}
        | {"tags", "user_data_base64", "working_directory"},
        "block_device_mapping": {"device_name", "ebs", "no_device", "virtual_name"},
        "ebs": {"delete_on_termination", "encrypted", "iops", "kms_key_id", "snapshot_id"}
        | {"volume_size", "volume_type"},
        "component": {"component_arn", "parameter"},
    },
    "aws_imagebuilder_infrastructure_configuration": {
        "": {"instance_profile_name", "name", "description", "instance_metadata_options"}
        | {"instance_types", "key_pair", "logging", "placement", "resource_tags"}
        | {"security_group_ids", "sns_topic_arn", "subnet_id", "tags"}
        | {"terminate_instance_on_failure"},
        "instance_metadata_options": {"http_put_response_hop_limit", "http_tokens"},
        "logging": {"s3_logs"},
        "s3_logs": {"s3_bucket_name", "s3_key_prefix"},
    },
    "aws_imagebuilder_distribution_configuration": {
        "": {"name", "distribution", "description", "kms_key_id", "tags"},
        "distribution": {"region", "ami_distribution_configuration"}
        | {"container_distribution_configuration", "launch_template_configuration"}
        | {"license_configuration_arns"},
        "ami_distribution_configuration": {"ami_tags", "description", "kms_key_id", "name"}
        | {"launch_permission", "target_account_ids"},
        "launch_permission": {"user_groups", "user_ids", "organization_arns"}
        | {"organizational_unit_arns"},
    },
    "aws_imagebuilder_image_pipeline": {
        "": {"infrastructure_configuration_arn", "name", "container_recipe_arn", "description"}
        | {"distribution_configuration_arn", "enhanced_image_metadata_enabled", "execution_role"}
        | {"image_recipe_arn", "image_scanning_configuration", "image_tests_configuration"}
        | {"schedule", "status", "workflow", "tags"},
        "image_tests_configuration": {"image_tests_enabled", "timeout_minutes"},
        "schedule": {"schedule_expression", "pipeline_execution_start_condition", "timezone"},
    },
    "aws_iam_role": {"": {"name", "description", "assume_role_policy", "tags"}},
    "aws_iam_role_policy": {"": {"name", "role", "policy"}},
    "aws_iam_role_policy_attachment": {"": {"role", "policy_arn"}},
    "aws_iam_instance_profile": {"": {"name", "role", "tags"}},
    "aws_iam_policy_document": {
        "": {"statement"},
        "statement": {"sid", "effect", "actions", "resources", "principals", "condition"},
        "principals": {"type", "identifiers"},
    },
    "aws_caller_identity": {"": set()},
    "aws_partition": {"": set()},
}
"""Kind -> block -> its arguments and blocks."""


@dataclass
class Block:
    """A block of a formatted file: its words, arguments, and inner blocks."""

    words: tuple[str, ...]
    arguments: dict[str, str] = field(default_factory=dict)
    blocks: list["Block"] = field(default_factory=list)


def parse(text: str) -> Block:
    """Parse a file that `terraform fmt` has formatted, in which each argument begins a line."""
    root = Block(())
    stack = [root]
    depth = 0  # of braces, brackets and parentheses in the value of an argument
    for line in text.splitlines():
        code = re.sub(r'"(?:\\.|[^"\\])*"', '""', line).partition("#")[0]
        opening = len(re.findall(r"[({\[]", code)) - len(re.findall(r"[)}\]]", code))
        if depth:
            depth += opening
        elif match := re.fullmatch(r'\s*(\w+)((?: "[^"]*")*) \{', line):
            block = Block((match[1], *re.findall('"([^"]*)"', match[2])))
            stack[-1].blocks.append(block)
            stack.append(block)
        elif argument := re.match(r"\s*(\w+)\s+=\s(.*)", line):
            stack[-1].arguments[argument[1]] = argument[2]
            depth = opening
        elif code.strip() == "}":
            stack.pop()
        elif code.strip() not in {"", "{}"}:
            assert re.fullmatch(r'\s*(data|resource) "" "" \{\}', code), line
            kinds = re.findall('"([^"]*)"', line)
            stack[-1].blocks.append(Block((code.split()[0], *kinds)))
    assert stack == [root]
    return root


FILES = {path: parse(path.read_text()) for path in sorted(FOLDER.rglob("*.tf"))}
RESOURCES = [
    block
    for root in FILES.values()
    for block in root.blocks
    if block.words[0] in {"resource", "data"}
]


def arguments(block: Block, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name of a block and each argument or block in it, through dynamic blocks."""
    for argument in block.arguments:
        yield name, argument
    for inner in block.blocks:
        word = inner.words[0]
        if word == "dynamic":
            yield name, inner.words[1]
            [content] = [each for each in inner.blocks if each.words == ("content",)]
            yield from arguments(content, inner.words[1])
        else:
            yield name, word
            if word not in META:
                yield from arguments(inner, word)


@pytest.mark.parametrize("block", RESOURCES, ids=lambda block: ".".join(block.words[1:]))
def test_each_argument_is_documented(block: Block) -> None:
    documented = DOCUMENTED[block.words[1]]

    found = [each for each in arguments(block) if each[1] not in META]

    assert [each for each in found if each[1] not in documented.get(each[0], set())] == []


def test_all_parts_of_a_pipeline_are_there() -> None:
    kinds = [block.words[1] for block in RESOURCES]

    assert set(DOCUMENTED) == set(kinds)


def test_each_variable_is_described_and_used() -> None:
    for path, root in FILES.items():
        texts = [each.read_text() for each in path.parent.glob("*.tf")]
        for block in root.blocks:
            if block.words[0] == "variable":
                name = block.words[1]
                assert {"description", "type"} <= block.arguments.keys(), name
                assert any(f"var.{name}" in text.replace(f'"{name}"', "") for text in texts), name


def test_the_module_gets_all_of_its_variables() -> None:
    [module] = [
        block
        for block in FILES[FOLDER / "main.tf"].blocks
        if block.words == ("module", "documents")
    ]
    variables = {
        block.words[1]
        for block in FILES[FOLDER / "documents/variables.tf"].blocks
        if block.words[0] == "variable"
    }

    assert module.arguments.keys() == variables | {"source"}


def test_the_role_may_only_read_and_log() -> None:
    text = (FOLDER / "iam.tf").read_text()
    actions = set(re.findall(r'"([a-z0-9]+:\w+)"', text))

    assert actions == {
        "sts:AssumeRole",
        "imagebuilder:GetComponent",
        "s3:GetObject",
        "s3:PutObject",
        "logs:CreateLogGroup",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
    }
    assert text.count('["*"]') == 1


def test_the_example_sets_only_variables() -> None:
    example = parse((FOLDER / "terraform.tfvars.example").read_text())
    variables = {
        block.words[1]: block
        for block in FILES[FOLDER / "variables.tf"].blocks
        if block.words[0] == "variable"
    }

    assert example.arguments.keys() <= variables.keys()
    required = {name for name, block in variables.items() if "default" not in block.arguments}
    assert required <= example.arguments.keys()
