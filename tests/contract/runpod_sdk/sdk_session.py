"""What a user of RunPod's own SDK does, against the API of the environment. Started by the test, not imported.

Runs in the conformance environment, which has the SDK and nothing of ours. Prints what it saw as one JSON object.
"""

import json
import os

import runpod
from runpod.error import AuthenticationError, QueryError

GPU = "NVIDIA RTX A4000"
runpod.api_key = os.environ["RUNPOD_API_KEY"]


def refused() -> dict[str, object]:
    """What the SDK makes of the errors that a user meets first."""
    seen: dict[str, object] = {}
    try:
        runpod.get_pods(api_key="rpa_of_somebody_else")
    except AuthenticationError as error:
        seen["wrong key"] = str(error)
    try:
        runpod.create_pod("too-much", image_name="i:1", gpu_type_id=GPU, gpu_count=99)
    except QueryError as error:
        seen["no capacity"] = [error.status_code, str(error)]
    return seen


made = runpod.create_pod(
    "sdk-pod",
    image_name="example/image:1",
    gpu_type_id=GPU,
    cloud_type="SECURE",
    container_disk_in_gb=20,
    ports="22/tcp,8888/http",
    env={"HELLO": "world"},
)
found = runpod.get_pod(made["id"])
seen = {
    "version": runpod.__version__,
    "gpus": [gpu["id"] for gpu in runpod.get_gpus()],
    "made": made,
    "listed": [pod["id"] for pod in runpod.get_pods()],
    "found": found,
    "stopped": runpod.stop_pod(made["id"]),
    "resumed": runpod.resume_pod(made["id"]),
    "refused": refused(),
    "ended": runpod.terminate_pod(made["id"]),
    "after": [runpod.get_pods(), runpod.get_pod(made["id"])],
}
print(json.dumps(seen))  # noqa: T201 - the test reads it
