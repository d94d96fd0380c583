package validation

// families add the lines of the table, one function per kind family.
var families = []func(table){addPods, addApps, addBatch, addScaling, addCore, addEvents, addServices, addDiscovery, addRBAC, addNetworking, addStorage, addSmall, addFlow, addAdmission, addExtensions, addDevices, addReviews}
