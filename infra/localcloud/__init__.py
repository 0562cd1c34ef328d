"""The stand-in cloud: what a laptop does not have (RunPod, Tailscale's API, an sshd per pod), as one loopback program.

It knows no Pulumi, no podfleet and no node: it starts pods by command.
"""
