"""RunPod by its REST v2: a typed client, a plain core (census, rent, end), and dynamic resources as thin shells."""
