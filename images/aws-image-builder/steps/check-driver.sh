#!/usr/bin/env bash
# Checks that the NVIDIA driver works, and is new enough for the images of llama-server.
# MIN_DRIVER_VERSION: oldest version, such as 550.54.14
# STATE_FOLDER: where this step remembers a reboot
set -euo pipefail
: "${MIN_DRIVER_VERSION:?is not set}" "${STATE_FOLDER:=/var/lib/slotkeeper-image}"

fail() {
  echo "check-driver: $1" >&2
  exit 1
}

rebooted="$STATE_FOLDER/rebooted-for-driver"

if ! command -v nvidia-smi >/dev/null; then
  fail "nvidia-smi is not installed: set parent_image to an AMI with the NVIDIA driver, such as an EKS AMI of the variant nvidia"
fi

if ! output=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>&1); then
  case "$output" in
    *"version mismatch"*)
      # The driver was updated, and the old kernel module is still loaded.
      if [ -e "$rebooted" ]; then
        fail "the kernel module and the library of the driver still differ after a reboot: install one version of both: $output"
      fi
      mkdir -p "$STATE_FOLDER"
      touch "$rebooted"
      echo "check-driver: rebooting, because the kernel module and the library of the driver differ"
      exit 194 # Image Builder reboots, and runs this step again.
      ;;
    *"No devices were found"*)
      fail "no GPU was found: set instance_types to types with an NVIDIA GPU, such as g4dn.xlarge"
      ;;
    *"communicate with the NVIDIA driver"*)
      fail "the kernel module nvidia is not loaded: set instance_types to types with an NVIDIA GPU, or parent_image to an AMI whose driver is built for its kernel: $output"
      ;;
    *)
      fail "nvidia-smi failed: $output"
      ;;
  esac
fi
rm -f "$rebooted"

version=$(head -n 1 <<<"$output" | tr -d '[:space:]')
if ! grep -Eq '^[0-9]+(\.[0-9]+)+$' <<<"$version"; then
  fail "nvidia-smi reports no version of the driver: $output"
fi
oldest=$(printf '%s\n%s\n' "$version" "$MIN_DRIVER_VERSION" | sort -V | head -n 1)
if [ "$oldest" != "$MIN_DRIVER_VERSION" ]; then
  fail "the driver is $version, but at least $MIN_DRIVER_VERSION is needed: set parent_image to a newer AMI, or min_driver_version to what the images of llama-server need"
fi
echo "check-driver: driver $version, $(wc -l <<<"$output") GPU(s)"
