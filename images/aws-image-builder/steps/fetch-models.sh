#!/usr/bin/env bash
# Downloads models into the node cache of Slotkeeper (nodeCache.path of the chart), with its own image.
# MODELS: lines of NAMESPACE URL SHA256
# DOWNLOAD_IMAGE: the image slotkeeper/download, whose user is 65532, and which pull-images.sh has pulled
set -euo pipefail
: "${MODELS?is not set}" "${MODELS_FOLDER:=/var/lib/slotkeeper/models}"
: "${CONTAINERD_ADDRESS:=/run/containerd/containerd.sock}"
export CONTAINERD_ADDRESS CONTAINERD_NAMESPACE=k8s.io

fail() {
  echo "fetch-models: $1" >&2
  exit 1
}

if [ -z "$MODELS" ]; then
  echo "fetch-models: no models"
  exit 0
fi
systemctl is-active --quiet containerd || systemctl start containerd
if [ -z "$(ctr images check --quiet "name==${DOWNLOAD_IMAGE:?is not set}")" ]; then
  fail "the image $DOWNLOAD_IMAGE is missing: run pull-images first"
fi
while read -r namespace url sha256; do
  folder="$MODELS_FOLDER/$namespace"
  # As the node cache's agent creates it: for the user of replicas and of their downloads only.
  install --directory --owner=65532 --group=65532 --mode=0700 "$folder"
  echo "fetch-models: $url"
  status=0
  ctr run --rm --net-host \
    --mount "type=bind,src=$folder,dst=/models,options=rbind:rw" \
    "$DOWNLOAD_IMAGE" "fetch-models-$$" \
    slotkeeper download --model "$url" --sha256 "$sha256" --to "/models/sha256-$sha256.gguf" \
    </dev/null || status=$?
  if [ "$status" -ne 0 ]; then
    fail "cannot download $url, exit status $status: see the lines above; correct models, or raise volume_size if the disk is full"
  fi
done <<<"$MODELS"
