"""What a user of RunPod's own SDK does, against the API of the environment. Started by the test, not imported.

Runs in the conformance environment, which has the SDK and nothing of ours. Prints what it saw as one JSON object.
"""

import asyncio
import json
import os

import runpod
from runpod.apps.api import AppsApiClient
from runpod.apps.logs import stream_pod_logs
from runpod.error import AuthenticationError, QueryError

GPU = "NVIDIA RTX A4000"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@example.com"
runpod.api_key = os.environ["RUNPOD_API_KEY"]


def said(call, *args, **kwargs) -> object:
    """The words of the SDK's error, with the status where it has one."""
    try:
        return {"no error": call(*args, **kwargs)}
    except QueryError as error:
        return [error.status_code, str(error), error.errors]
    except (AuthenticationError, ValueError) as error:
        return str(error)


def refused() -> dict[str, object]:
    """What the SDK makes of the errors that a user meets first."""
    return {
        "wrong key": said(runpod.get_pods, api_key="rpa_of_somebody_else"),
        "wrong key in GraphQL": said(runpod.get_user, api_key="rpa_of_somebody_else"),
        "no capacity": said(runpod.create_pod, "too-much", image_name="i:1", gpu_type_id=GPU, gpu_count=99),
        "no such template": said(runpod.create_pod, "t", template_id="nobody", gpu_type_id=GPU),
        "bad port": said(runpod.create_pod, "p", image_name="i:1", gpu_type_id=GPU, ports="22"),
        "no such gpu": said(runpod.get_gpu, "RTX 9000"),
        "no such pod": said(runpod.stop_pod, "nobody"),
        "no serverless": said(runpod.get_endpoints),
    }


def pods() -> dict[str, object]:
    """A GPU pod from create to terminate, and a CPU pod."""
    made = runpod.create_pod(
        "sdk-pod",
        image_name="example/image:1",
        gpu_type_id=GPU,
        cloud_type="SECURE",
        container_disk_in_gb=20,
        ports="22/tcp,8888/http",
        env={"HELLO": "world"},
        min_vcpu_count=2,
        min_memory_in_gb=8,
        allowed_cuda_versions=["12.8"],
    )
    cpu = runpod.create_pod("sdk-cpu", image_name="i:1", instance_id="cpu3c-2-4")
    seen = {
        "made": made,
        "cpu": cpu,
        "listed": [pod["id"] for pod in runpod.get_pods()],
        "found": runpod.get_pod(made["id"]),
        "log": asyncio.run(first_line(made["id"])),
        "stopped": runpod.stop_pod(made["id"]),
        "resumed": runpod.resume_pod(made["id"]),
        "ended": [runpod.terminate_pod(made["id"]), runpod.terminate_pod(cpu["id"])],
    }
    return {**seen, "after": [runpod.get_pods(), runpod.get_pod(made["id"])], "twice": said(runpod.terminate_pod, "x")}


async def first_line(pod_id: str) -> dict[str, str]:
    """The first line of the container's log; waits until there is one."""
    async for line in stream_pod_logs(pod_id, log_type="container"):
        return line
    raise RuntimeError("the stream ended")


async def account() -> dict[str, object]:
    """Volumes over several pages, registry logins, keys, the user."""
    api = AppsApiClient()
    volumes = [await api.create_network_volume(f"v{n}", 10, "EU-RO-1") for n in range(5)]
    login = await api.create_registry_auth("ghcr", "me", "secret")
    other = runpod.create_container_registry_auth("hub", "me", "secret")
    template = runpod.create_template("t", "i:1", container_disk_in_gb=11, ports="22/tcp", registry_auth_id=login["id"])
    pod = runpod.create_pod("with", template_id=template["id"], gpu_type_id=GPU, network_volume_id=volumes[0]["id"])
    seen = {
        "volumes": volumes,
        "listed": await api.list_network_volumes(),
        "logins": [login, other],
        "renewed": runpod.update_container_registry_auth(other["id"], "you", "secret too"),
        "listed logins": await api.list_registry_auths(),
        "template": template,
        "pod": pod,
        "login in use": said(runpod.delete_container_registry_auth, login["id"]),
        "user": runpod.update_user_settings(f"{KEY}\n"),
        "same user": runpod.get_user(),
    }
    runpod.terminate_pod(pod["id"])
    seen["deleted"] = [await api.delete_registry_auth(each["id"]) for each in (login, other)]
    seen["left"] = await api.list_registry_auths()
    return seen


async def catalogue() -> dict[str, object]:
    """What there is, where."""
    api = AppsApiClient()
    return {
        "gpus": [gpu["id"] for gpu in runpod.get_gpus()],
        "gpu": runpod.get_gpu(GPU),
        "stock": await api.gpu_stock_status(GPU, "EU-RO-1", pods=True),
        "cpu stock": await api.cpu_stock_status("cpu3c-2-4", "EU-RO-1", pods=True),
        "with volumes": sorted(await api.network_volume_datacenters()),
    }


seen = {
    "version": runpod.__version__,
    "catalogue": asyncio.run(catalogue()),
    "pods": pods(),
    "account": asyncio.run(account()),
    "refused": refused(),
}
print(json.dumps(seen))  # noqa: T201 - the test reads it
