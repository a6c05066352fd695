#!/bin/sh
# Installs Debian's packages for a stage of the image: packages.sh build|run BACKEND
set -eu

stage="$1" backend="$2"

case "$stage:$backend" in
  build:vulkan) packages="glslc libvulkan-dev spirv-headers" ;;
  run:vulkan) packages="libvulkan1 mesa-vulkan-drivers" ;;
  *:cpu | *:cuda | *:rocm) packages="" ;;
  *) echo "no backend $backend: must be cpu, cuda, vulkan or rocm" >&2; exit 2 ;;
esac
case "$stage" in
  build) packages="$packages ca-certificates cmake g++ git libssl-dev ninja-build python3-venv" ;;
  run) packages="$packages ca-certificates curl libgomp1 libssl3t64" ;;
esac

apt-get update
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $packages
rm -rf /var/cache/apt/* /var/lib/apt/lists/*
