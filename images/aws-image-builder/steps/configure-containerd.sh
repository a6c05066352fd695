#!/usr/bin/env bash
# Makes NVIDIA's runtime the default of containerd, unless the node's own set-up does it.
# CONTAINERD_CONFIG: containerd's configuration
set -euo pipefail
: "${CONTAINERD_CONFIG:=/etc/containerd/config.toml}"

fail() {
  echo "configure-containerd: $1" >&2
  exit 1
}

has_runtime() {
  containerd --config "$CONTAINERD_CONFIG" config dump | grep -q 'nvidia-container-runtime'
}

for program in containerd nvidia-ctk; do
  if ! command -v "$program" >/dev/null; then
    fail "$program is not installed: set parent_image to an AMI with containerd and the NVIDIA Container Toolkit, or install them with a component in additional_component_arns"
  fi
done

if command -v nodeadm >/dev/null; then
  echo "configure-containerd: nothing to do: nodeadm configures containerd when the node boots"
  exit 0
fi

if [ ! -e "$CONTAINERD_CONFIG" ]; then
  mkdir -p "$(dirname "$CONTAINERD_CONFIG")"
  containerd config default >"$CONTAINERD_CONFIG"
elif has_runtime; then
  echo "configure-containerd: the runtime is configured already"
  exit 0
fi

nvidia-ctk runtime configure --runtime=containerd --config="$CONTAINERD_CONFIG" --set-as-default
if ! has_runtime; then
  fail "nvidia-ctk has not added its runtime to $CONTAINERD_CONFIG: compare its version with containerd's: $(containerd --version)"
fi
systemctl restart containerd
echo "configure-containerd: NVIDIA's runtime is the default"
