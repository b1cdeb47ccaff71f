"""Many runs from one manifest: jobs, their processes, what is shown of them."""
