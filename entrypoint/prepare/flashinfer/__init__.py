"""What FlashInfer writes into its own packages, on images that are read-only or belong to somebody else.

`kernel_sources`: releases before 0.6.3 write sources of kernels; made when the image is built.
`cubins`: releases after 0.6.7 make a lock and a link among their cubins; made in a copy of links.
`for_plan` does both for a plan, before anything starts. docs/decisions/flashinfer.md has the measurements.
"""
